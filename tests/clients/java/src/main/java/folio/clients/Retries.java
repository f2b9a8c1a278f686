package folio.clients;

import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.Queue;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Consumption that fails: the message comes again, and after the last try lies in the dead letter topic. */
final class Retries {
    private Retries() {}

    /** Fails once with the shortest delay; the second delivery carries the count and the topic it was sent to. */
    static void once(Lab lab) throws Exception {
        String topic = lab.topic("retry");
        List<String> sent = Lab.send(lab.producer(), topic, "retry", 5);
        Set<String> failed = ConcurrentHashMap.newKeySet();
        Inbox again = new Inbox();
        DefaultMQPushConsumer consumer = lab.push(lab.group("retry"));
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            MessageExt message = messages.get(0);
            if (message.getReconsumeTimes() == 0) {
                failed.add(Inbox.text(message));
                context.setDelayLevelWhenNextConsume(1);
                return ConsumeConcurrentlyStatus.RECONSUME_LATER;
            }
            again.add(message);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        again.await(sent);
        Check.that(failed.containsAll(sent), "some were never delivered a first time");
        for (String payload : sent) {
            Check.equal(1, again.message(payload).getReconsumeTimes(), "reconsume times of " + payload);
            Check.equal(topic, again.message(payload).getTopic(), "topic of a retry");
            Check.equal("tag", again.message(payload).getTags(), "tag of a retry");
        }
    }

    /** Fails twice without naming a delay: the second delivery comes after 10 seconds, the third after 30 more. */
    static void backOff(Lab lab) throws Exception {
        String topic = lab.topic("backoff");
        List<String> sent = Lab.send(lab.producer(), topic, "backoff", 3);
        Map<String, Long> failedMs = new ConcurrentHashMap<>();
        Queue<String> early = new ConcurrentLinkedQueue<>();
        Inbox third = new Inbox();
        DefaultMQPushConsumer consumer = lab.push(lab.group("backoff"));
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            MessageExt message = messages.get(0);
            int times = message.getReconsumeTimes();
            long now = System.currentTimeMillis();
            // The clock of the servers is that of this machine, or as good.
            Long before = failedMs.put(Inbox.text(message) + "/" + times, now);
            Long last = failedMs.get(Inbox.text(message) + "/" + (times - 1));
            long waits = times == 1 ? 10_000 : 30_000;
            if (before == null && last != null && now - last < waits) {
                early.add(Inbox.text(message) + " came for the " + times + ". time again after " + (now - last) + " ms");
            }
            if (times < 2) {
                return ConsumeConcurrentlyStatus.RECONSUME_LATER;
            }
            third.add(message);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        third.await(sent);
        Check.that(early.isEmpty(), String.join(", ", early));
    }

    /** An orderly consumer that fails always with one retry allowed: it is given up in its queue, and the dead letter topic has it. */
    static void orderlyDeadLetter(Lab lab) throws Exception {
        String topic = lab.topic("dlqorderly");
        String group = lab.group("dlqorderly");
        List<String> sent = Lab.send(lab.producer(), topic, "dead", 3);
        DefaultMQPushConsumer consumer = lab.push(group);
        consumer.setMaxReconsumeTimes(1);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerOrderly) (messages, context) ->
            ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT);
        consumer.start();
        Inbox dead = new Inbox();
        DefaultMQPullConsumer reader = lab.pull(lab.group("dlqorderlyreader"));
        Check.until("all messages in the dead letter topic", () -> {
            Thread.sleep(500);
            read(reader, "%DLQ%" + group, dead);
            return dead.missing(sent).isEmpty();
        });
        for (String payload : sent) {
            Check.equal(topic, dead.message(payload).getProperty("RETRY_TOPIC"), "RETRY_TOPIC of a dead letter");
            Check.that(dead.message(payload).getProperty("ORIGIN_MESSAGE_ID") != null, "ORIGIN_MESSAGE_ID of a dead letter");
        }
    }

    /** Fails always with one retry allowed: two deliveries, then the dead letter topic has it. */
    static void deadLetter(Lab lab) throws Exception {
        String topic = lab.topic("dlq");
        String group = lab.group("dlq");
        List<String> sent = Lab.send(lab.producer(), topic, "dead", 3);
        Queue<String> deliveries = new ConcurrentLinkedQueue<>();
        DefaultMQPushConsumer consumer = lab.push(group);
        consumer.setMaxReconsumeTimes(1);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(message -> deliveries.add(Inbox.text(message) + "/" + message.getReconsumeTimes()));
            return ConsumeConcurrentlyStatus.RECONSUME_LATER;
        });
        consumer.start();
        Inbox dead = new Inbox();
        DefaultMQPullConsumer reader = lab.pull(lab.group("dlqreader"));
        Check.until("all messages in the dead letter topic, deliveries so far " + deliveries, () -> {
            Thread.sleep(500);
            read(reader, "%DLQ%" + group, dead);
            return dead.missing(sent).isEmpty();
        });
        for (String payload : sent) {
            Check.that(deliveries.contains(payload + "/0") && deliveries.contains(payload + "/1"),
                "deliveries were " + deliveries);
            Check.equal(1, dead.times(payload), "copies of " + payload + " in the dead letter topic");
            Check.equal(topic, dead.message(payload).getProperty("RETRY_TOPIC"), "RETRY_TOPIC of a dead letter");
        }
        Check.that(deliveries.stream().noneMatch(delivery -> delivery.endsWith("/2")),
            "delivered beyond the last try: " + deliveries);
    }

    /** Reads a topic that may not exist yet, from where the inbox ends (one queue). */
    private static void read(DefaultMQPullConsumer reader, String topic, Inbox inbox) throws Exception {
        Set<MessageQueue> queues;
        try {
            queues = reader.fetchSubscribeMessageQueues(topic);
        } catch (MQClientException notYet) {
            return;
        }
        Check.equal(1, queues.size(), "queues of the dead letter topic");
        PullResult result = reader.pull(queues.iterator().next(), "*", inbox.size(), 32);
        if (result.getPullStatus() == PullStatus.FOUND) {
            inbox.addAll(result.getMsgFoundList());
        }
    }
}
