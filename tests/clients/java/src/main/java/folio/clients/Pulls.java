package folio.clients;

import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Set;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Consumers that ask for messages themselves. */
final class Pulls {
    private Pulls() {}

    /** Every queue read from its first to its last offset gives every message once, in order. */
    static void byQueue(Lab lab) throws Exception {
        String topic = lab.topic("pull");
        List<String> sent = Lab.send(lab.producer(), topic, "pull", 150);
        DefaultMQPullConsumer consumer = lab.pull(lab.group("pull"));
        Inbox inbox = new Inbox();
        for (MessageQueue queue : consumer.fetchSubscribeMessageQueues(topic)) {
            long offset = consumer.minOffset(queue);
            long max = consumer.maxOffset(queue);
            while (offset < max) {
                PullResult result = consumer.pull(queue, "*", offset, 7);
                Check.equal(PullStatus.FOUND, result.getPullStatus(), "pull at " + offset + " of " + max);
                for (MessageExt message : result.getMsgFoundList()) {
                    Check.equal(offset++, message.getQueueOffset(), "queue offset");
                    inbox.add(message);
                }
                Check.equal(offset, result.getNextBeginOffset(), "next offset");
            }
            PullResult end = consumer.pull(queue, "*", max, 7);
            Check.equal(PullStatus.NO_NEW_MSG, end.getPullStatus(), "pull at the end");
            PullResult beyond = consumer.pull(queue, "*", max + 1_000, 7);
            Check.equal(PullStatus.OFFSET_ILLEGAL, beyond.getPullStatus(), "pull beyond the end");
            Check.equal(max, beyond.getNextBeginOffset(), "where a pull beyond the end is sent");
        }
        inbox.await(sent, 1);
        Check.equal(0, inbox.repeats(), "messages read twice");
    }

    /** Minimum, maximum, search by time, a stored position that survives the consumer, and a pull that waits. */
    static void offsets(Lab lab) throws Exception {
        String topic = lab.topic("offsets");
        DefaultMQProducer producer = lab.producer();
        MessageQueue queue = Lab.ok(producer.send(Lab.message(topic, "tag", null, "early-0"))).getMessageQueue();
        for (int i = 1; i < 10; i++) {
            Lab.ok(producer.send(Lab.message(topic, "tag", null, "early-" + i), queue));
        }
        Thread.sleep(50);
        long between = System.currentTimeMillis();
        Thread.sleep(50);
        for (int i = 0; i < 10; i++) {
            Lab.ok(producer.send(Lab.message(topic, "tag", null, "late-" + i), queue));
        }
        String group = lab.group("offsets");
        DefaultMQPullConsumer consumer = lab.pull(group);
        Check.equal(0L, consumer.minOffset(queue), "minimum");
        Check.equal(20L, consumer.maxOffset(queue), "maximum");
        Check.equal(10L, consumer.searchOffset(queue, between), "offset at a time between");
        Check.equal(0L, consumer.searchOffset(queue, between - 3_600_000), "offset an hour ago");
        Check.equal(20L, consumer.searchOffset(queue, System.currentTimeMillis() + 3_600_000), "offset in an hour");
        Check.that(consumer.earliestMsgStoreTime(queue) <= between, "store time of the first message");
        Check.equal(PullStatus.FOUND, consumer.pull(queue, "*", 0, 13).getPullStatus(), "first pull");
        consumer.updateConsumeOffset(queue, 13);
        consumer.getDefaultMQPullConsumerImpl().getOffsetStore().persist(queue);
        Check.until("the position 13 is stored", () -> consumer.fetchConsumeOffset(queue, true) == 13);
        consumer.shutdown();
        DefaultMQPullConsumer next = lab.pull(group);
        Check.until("the stored position 13 is read back", () -> next.fetchConsumeOffset(queue, true) == 13);
        Thread sender = new Thread(() -> {
            try {
                Thread.sleep(1_500);
                Lab.send(producer, topic, "awaited", 8);
                Lab.ok(producer.send(Lab.message(topic, "tag", null, "awaited"), queue));
            } catch (Exception e) {
                e.printStackTrace();
            }
        });
        long start = System.nanoTime();
        sender.start();
        PullResult awaited = next.pullBlockIfNotFound(queue, "*", 20, 1);
        long waitedMs = (System.nanoTime() - start) / 1_000_000;
        sender.join();
        Check.equal(PullStatus.FOUND, awaited.getPullStatus(), "pull that waits");
        // With the message and not when its time of 20 s is over, however slow the machine.
        Check.that(waitedMs >= 1_000 && waitedMs < 15_000, "a waiting pull came back after " + waitedMs + " ms");
    }

    /** A lite consumer that subscribes gets all; the next one of the group gets only what is new. */
    static void liteSubscribe(Lab lab) throws Exception {
        String topic = lab.topic("lite");
        String group = lab.group("lite");
        DefaultMQProducer producer = lab.producer();
        List<String> sent = Lab.send(producer, topic, "lite", 60);
        DefaultLitePullConsumer consumer = lab.litePull(group);
        consumer.subscribe(topic, "*");
        consumer.setPullBatchSize(20);
        consumer.start();
        Inbox inbox = new Inbox();
        poll(consumer, inbox, sent);
        consumer.commitSync();
        Thread.sleep(1_500);
        consumer.shutdown();
        List<String> fresh = Lab.send(producer, topic, "fresh", 20);
        DefaultLitePullConsumer next = lab.litePull(group);
        next.subscribe(topic, "*");
        next.start();
        Inbox second = new Inbox();
        poll(next, second, fresh);
        Check.equal(fresh.size(), second.size(), "distinct payloads of the second consumer");
    }

    /** A lite consumer that assigns itself queues reads from where it seeks. */
    static void liteAssign(Lab lab) throws Exception {
        String topic = lab.topic("assign");
        DefaultMQProducer producer = lab.producer();
        MessageQueue queue = Lab.ok(producer.send(Lab.message(topic, "tag", null, "0"))).getMessageQueue();
        List<String> sent = new ArrayList<>(List.of("0"));
        for (int i = 1; i < 30; i++) {
            Lab.ok(producer.send(Lab.message(topic, "tag", null, String.valueOf(i)), queue));
            sent.add(String.valueOf(i));
        }
        DefaultLitePullConsumer consumer = lab.litePull(lab.group("assign"));
        consumer.setAutoCommit(false);
        consumer.start();
        Collection<MessageQueue> queues = consumer.fetchMessageQueues(topic);
        Check.that(queues.stream().anyMatch(q -> q.getQueueId() == queue.getQueueId()), "queues are " + queues);
        consumer.assign(Set.of(queue));
        // A group without an offset begins at the queue's first message. All of it before the first seek: a pull that is
        // under way when this client seeks may still be delivered afterwards (PullTaskImpl of 4.9 and 5.3 looks whether
        // a seek is pending, which the next pull has taken already).
        poll(consumer, new Inbox(), sent);
        consumer.seek(queue, 20);
        Inbox tail = new Inbox();
        poll(consumer, tail, sent.subList(20, 30));
        Check.equal(10, tail.size(), "messages from offset 20 on");
        consumer.seekToBegin(queue);
        Inbox all = new Inbox();
        poll(consumer, all, sent);
        consumer.seekToEnd(queue);
        Lab.ok(producer.send(Lab.message(topic, "tag", null, "new"), queue));
        Inbox end = new Inbox();
        poll(consumer, end, List.of("new"));
        Check.equal(1, end.size(), "messages from the end on");
        Check.equal(0L, consumer.offsetForTimestamp(queue, 0L), "offset at time 0");
    }

    private static void poll(DefaultLitePullConsumer consumer, Inbox inbox, List<String> expected) throws Exception {
        long end = System.nanoTime() + Check.PATIENCE_SECONDS * 1_000_000_000L;
        while (!inbox.missing(expected).isEmpty() && System.nanoTime() < end) {
            inbox.addAll(consumer.poll(500));
        }
        inbox.await(expected, 0);
    }
}
