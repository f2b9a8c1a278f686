package folio.clients;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * One Message object sent several times on purpose, in every way to send: each one is a message. The client gives an object
 * one UNIQ_KEY for all of them, as it does for its own retries. What is stored is told by the queues' offsets.
 */
final class Repeats {
    private static final int TIMES = 10;

    private Repeats() {}

    static void sync(Lab lab) throws Exception {
        String topic = lab.topic("again_sync");
        DefaultMQProducer producer = lab.producer();
        Message message = Lab.message(topic, "tag", "key", "again");
        for (int i = 0; i < TIMES; i++) {
            Lab.ok(producer.send(message));
        }
        stored(producer, topic, TIMES);
        // A body that changes to and fro under one key.
        for (int i = 0; i < TIMES; i++) {
            message.setBody((i % 2 == 0 ? "ON" : "OFF").getBytes(StandardCharsets.UTF_8));
            Lab.ok(producer.send(message));
        }
        stored(producer, topic, 2 * TIMES);
    }

    static void async(Lab lab) throws Exception {
        String topic = lab.topic("again_async");
        DefaultMQProducer producer = lab.producer();
        Lab.send(producer, topic, "first", 1);
        Message message = Lab.message(topic, "tag", "key", "again");
        CountDownLatch answers = new CountDownLatch(TIMES);
        AtomicReference<Throwable> failure = new AtomicReference<>();
        for (int i = 0; i < TIMES; i++) {
            producer.send(message, new SendCallback() {
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
        stored(producer, topic, 1 + TIMES);
    }

    static void oneway(Lab lab) throws Exception {
        String topic = lab.topic("again_oneway");
        DefaultMQProducer producer = lab.producer();
        Lab.send(producer, topic, "first", 1);
        Message message = Lab.message(topic, "tag", "key", "again");
        for (int i = 0; i < TIMES; i++) {
            producer.sendOneway(message);
        }
        Check.until(TIMES + " oneway messages stored", () -> count(producer, topic) >= 1 + TIMES);
        stored(producer, topic, 1 + TIMES);
    }

    /** Each queue by name, then a selector over all of them; the answer names the queue that was asked for. */
    static void queues(Lab lab) throws Exception {
        String topic = lab.topic("again_queues");
        DefaultMQProducer producer = lab.producer();
        Lab.send(producer, topic, "first", 1);
        Message message = Lab.message(topic, "tag", "key", "again");
        List<MessageQueue> queues = producer.fetchPublishMessageQueues(topic);
        for (MessageQueue queue : queues) {
            Check.equal(queue, Lab.ok(producer.send(message, queue)).getMessageQueue(), "queue");
        }
        for (int i = 0; i < 2 * queues.size(); i++) {
            SendResult result = Lab.ok(producer.send(message, (all, m, arg) -> all.get((Integer) arg % all.size()), i));
            Check.equal(queues.get(i % queues.size()).getQueueId(), result.getMessageQueue().getQueueId(), "selected queue");
        }
        stored(producer, topic, 1 + 3 * queues.size());
    }

    static void batch(Lab lab) throws Exception {
        String topic = lab.topic("again_batch");
        DefaultMQProducer producer = lab.producer();
        List<Message> list = new ArrayList<>();
        for (int i = 0; i < 5; i++) {
            list.add(Lab.message(topic, "tag", "key" + i, "again-" + i));
        }
        for (int i = 0; i < 3; i++) {
            Lab.ok(producer.send(list));
        }
        stored(producer, topic, 3 * list.size());
    }

    /** One object by the connections of two clients in turn. */
    static void producers(Lab lab) throws Exception {
        String topic = lab.topic("again_producers");
        DefaultMQProducer[] producers = {lab.producer(), lab.producer()};
        Message message = Lab.message(topic, "tag", "key", "again");
        for (int i = 0; i < TIMES; i++) {
            Lab.ok(producers[i % 2].send(message));
        }
        stored(producers[0], topic, TIMES);
    }

    private static long count(DefaultMQProducer producer, String topic) throws Exception {
        long count = 0;
        for (MessageQueue queue : producer.fetchPublishMessageQueues(topic)) {
            count += producer.maxOffset(queue) - producer.minOffset(queue);
        }
        return count;
    }

    private static void stored(DefaultMQProducer producer, String topic, long expected) throws Exception {
        Check.equal(expected, count(producer, topic), "messages stored");
    }
}
