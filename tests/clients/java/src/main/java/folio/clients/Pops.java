package folio.clients;

import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.MessageExt;

/** Consumers that pop: the broker assigns the queues, and gives each message until it is acknowledged. */
final class Pops {
    private static final int MESSAGES = 200;
    private static final int FAILING = 5;

    private Pops() {}

    /** Two consumers of a group that an operator has set to pop get each message once; what fails comes again with count 1. */
    static void push(Lab lab) throws Exception {
        String topic = lab.topic("pop");
        String group = lab.group("pop");
        DefaultMQProducer producer = lab.producer();
        // The topic comes into being, and its broker is known.
        SendResult first = Lab.ok(producer.send(Lab.message(topic, "tag", null, "first")));
        Inbox inbox = new Inbox();
        Set<String> failed = ConcurrentHashMap.newKeySet();
        Set<String> pulled = ConcurrentHashMap.newKeySet();
        MessageListenerConcurrently listener = (messages, context) -> {
            for (MessageExt message : messages) {
                String payload = Inbox.text(message);
                if (!payload.equals("first") && message.getProperty("POP_CK") == null) {
                    pulled.add(payload);
                }
                if (isFailing(payload) && message.getReconsumeTimes() == 0) {
                    failed.add(payload);
                    return ConsumeConcurrentlyStatus.RECONSUME_LATER;
                }
                inbox.add(message);
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        };
        DefaultMQPushConsumer one = start(lab, group, topic, listener);
        DefaultMQPushConsumer two = start(lab, group, topic, listener);
        inbox.await(List.of("first"));
        Versions.setPopMode(one, first.getMessageQueue().getBrokerName(), topic, group);
        Check.until("both consumers pop", () -> Versions.pops(one) && Versions.pops(two));
        List<String> sent = Lab.send(producer, topic, "pop", MESSAGES);
        inbox.await(sent);
        // What is wrong would come now.
        Thread.sleep(3_000);
        Check.that(pulled.isEmpty(), "not popped: " + pulled);
        for (int i = 0; i < FAILING; i++) {
            String payload = "pop-" + i;
            Check.that(failed.contains(payload), payload + " was never delivered a first time");
            Check.equal(1, inbox.message(payload).getReconsumeTimes(), "reconsume times of " + payload);
            Check.equal(topic, inbox.message(payload).getTopic(), "topic of a retry");
            Check.equal("tag", inbox.message(payload).getTags(), "tag of a retry");
        }
        for (String payload : sent) {
            Check.equal(1, inbox.times(payload), "deliveries of " + payload + " that were acknowledged");
        }
    }

    private static boolean isFailing(String payload) {
        return payload.startsWith("pop-") && Integer.parseInt(payload.substring(4)) < FAILING;
    }

    private static DefaultMQPushConsumer start(Lab lab, String group, String topic, MessageListenerConcurrently listener)
            throws Exception {
        DefaultMQPushConsumer consumer = lab.push(group);
        Versions.serverRebalance(consumer);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener(listener);
        consumer.start();
        return consumer;
    }
}
