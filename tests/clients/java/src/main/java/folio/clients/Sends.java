package folio.clients;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ConcurrentHashMap;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** The ways to send one message, each read back by a push consumer. */
final class Sends {
    private Sends() {}

    /** Body, tag, key, flag and user properties come back as they were sent; a large body is compressed on the way. */
    static void sync(Lab lab) throws Exception {
        String topic = lab.topic("sync");
        DefaultMQProducer producer = lab.producer();
        List<String> sent = new ArrayList<>();
        for (int i = 0; i < 20; i++) {
            String payload = i == 7 ? "large" + "-payload".repeat(4_000) : "sync-" + i;
            Message message = Lab.message(topic, "TagA", "key" + i, payload);
            message.putUserProperty("number", String.valueOf(i));
            message.setFlag(i);
            SendResult result = Lab.ok(producer.send(message));
            Check.that(result.getMsgId().length() >= 32, "message id " + result.getMsgId());
            Check.that(result.getOffsetMsgId().length() >= 32, "offset message id " + result.getOffsetMsgId());
            sent.add(payload);
        }
        Inbox inbox = new Inbox();
        lab.pushInto(inbox, lab.group("sync"), topic, "*");
        inbox.await(sent);
        for (int i = 0; i < sent.size(); i++) {
            MessageExt message = inbox.message(sent.get(i));
            Check.equal(topic, message.getTopic(), "topic");
            Check.equal("TagA", message.getTags(), "tag");
            Check.equal("key" + i, message.getKeys(), "key");
            Check.equal(String.valueOf(i), message.getUserProperty("number"), "user property");
            Check.equal(i, message.getFlag(), "flag");
        }
    }

    /** Every callback comes, and consecutive offsets per queue show that nothing was stored twice. */
    static void async(Lab lab) throws Exception {
        String topic = lab.topic("async");
        DefaultMQProducer producer = lab.producer();
        List<String> sent = new ArrayList<>(Lab.send(producer, topic, "first", 1));
        int count = 200;
        CountDownLatch answers = new CountDownLatch(count);
        AtomicReference<Throwable> failure = new AtomicReference<>();
        for (int i = 0; i < count; i++) {
            String payload = "async-" + i;
            sent.add(payload);
            producer.send(Lab.message(topic, "tag", payload, payload), new SendCallback() {
                @Override
                public void onSuccess(SendResult result) {
                    answers.countDown();
                }

                @Override
                public void onException(Throwable e) {
                    failure.compareAndSet(null, e);
                    answers.countDown();
                }
            });
        }
        Check.that(answers.await(Check.PATIENCE_SECONDS, TimeUnit.SECONDS), answers.getCount() + " callbacks are missing");
        Check.that(failure.get() == null, "a send failed: " + failure.get());
        Inbox inbox = new Inbox();
        lab.pushInto(inbox, lab.group("async"), topic, "*");
        inbox.await(sent);
        Check.equal(sent.size(), inbox.size(), "distinct payloads");
    }

    static void oneway(Lab lab) throws Exception {
        String topic = lab.topic("oneway");
        DefaultMQProducer producer = lab.producer();
        List<String> sent = new ArrayList<>(Lab.send(producer, topic, "first", 1));
        for (int i = 0; i < 50; i++) {
            producer.sendOneway(Lab.message(topic, "tag", null, "oneway-" + i));
            sent.add("oneway-" + i);
        }
        Inbox inbox = new Inbox();
        lab.pushInto(inbox, lab.group("oneway"), topic, "*");
        inbox.await(sent);
    }

    /** A selector puts all messages of a key into one queue, where their offsets rise in the order of sending. */
    static void orderly(Lab lab) throws Exception {
        String topic = lab.topic("selector");
        DefaultMQProducer producer = lab.producer();
        Map<Integer, MessageQueue> queues = new ConcurrentHashMap<>();
        Map<MessageQueue, Long> offsets = new ConcurrentHashMap<>();
        for (int i = 0; i < 100; i++) {
            int key = i % 10;
            SendResult result = Lab.ok(producer.send(Lab.message(topic, "tag", "k" + key, "m" + i), (all, message, arg) ->
                all.get((Integer) arg % all.size()), key));
            MessageQueue queue = result.getMessageQueue();
            MessageQueue before = queues.putIfAbsent(key, queue);
            Check.that(before == null || before.equals(queue), "key " + key + " moved from " + before + " to " + queue);
            Long last = offsets.put(queue, result.getQueueOffset());
            Check.that(last == null || last + 1 == result.getQueueOffset(),
                "offset " + result.getQueueOffset() + " follows " + last + " in " + queue);
        }
    }

    /** Bytes that compression cannot make smaller. */
    static byte[] noise(int length) {
        byte[] bytes = new byte[length];
        new Random(length).nextBytes(bytes);
        return Arrays.copyOf(bytes, length);
    }
}
