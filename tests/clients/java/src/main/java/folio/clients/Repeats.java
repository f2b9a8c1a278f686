package folio.clients;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
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
 *
 * FolioMQ tells the one from the other by whether the answer before came within a second: after a later one, the same object
 * may be a retry. A story that fails on a machine too busy for that is told again, under another topic.
 */
final class Repeats {
    private static final int TIMES = 10;
    /** Half of what the server takes for prompt: it is measured here, where an answer takes longer. */
    private static final long PROMPT_NANOS = 500_000_000L;
    private static final int STORIES = 20;

    private Repeats() {}

    /** Sends to a topic of its own, and checks what is stored. */
    private interface Story {
        void tell(String topic, Clock clock) throws Exception;
    }

    /** How long the slowest answer took. */
    private static final class Clock {
        private long slowest;

        SendResult answer(Callable<SendResult> send) throws Exception {
            long begun = System.nanoTime();
            SendResult result = send.call();
            note(begun);
            return Lab.ok(result);
        }

        void note(long begun) {
            slowest = Math.max(slowest, System.nanoTime() - begun);
        }
    }

    private static void promptly(Lab lab, String name, Story story) throws Exception {
        for (int told = 1;; told++) {
            Clock clock = new Clock();
            try {
                story.tell(lab.topic(name + "_" + told), clock);
                return;
            } catch (AssertionError e) {
                if (clock.slowest < PROMPT_NANOS || told == STORIES) {
                    throw e;
                }
            }
        }
    }

    static void sync(Lab lab) throws Exception {
        DefaultMQProducer producer = lab.producer();
        promptly(lab, "again_sync", (topic, clock) -> {
            Message message = Lab.message(topic, "tag", "key", "again");
            for (int i = 0; i < TIMES; i++) {
                clock.answer(() -> producer.send(message));
            }
            stored(producer, topic, TIMES);
            // A body that changes to and fro under one key.
            for (int i = 0; i < TIMES; i++) {
                message.setBody((i % 2 == 0 ? "ON" : "OFF").getBytes(StandardCharsets.UTF_8));
                clock.answer(() -> producer.send(message));
            }
            stored(producer, topic, 2 * TIMES);
        });
    }

    static void async(Lab lab) throws Exception {
        DefaultMQProducer producer = lab.producer();
        promptly(lab, "again_async", (topic, clock) -> allAtOnce(producer, topic, clock));
    }

    private static void allAtOnce(DefaultMQProducer producer, String topic, Clock clock) throws Exception {
        Lab.send(producer, topic, "first", 1);
        Message message = Lab.message(topic, "tag", "key", "again");
        long begun = System.nanoTime();
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
        clock.note(begun);
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
        DefaultMQProducer producer = lab.producer();
        promptly(lab, "again_queues", (topic, clock) -> {
            Lab.send(producer, topic, "first", 1);
            Message message = Lab.message(topic, "tag", "key", "again");
            List<MessageQueue> queues = producer.fetchPublishMessageQueues(topic);
            for (MessageQueue queue : queues) {
                Check.equal(queue, clock.answer(() -> producer.send(message, queue)).getMessageQueue(), "queue");
            }
            for (int i = 0; i < 2 * queues.size(); i++) {
                Integer at = i % queues.size();
                SendResult result = clock.answer(() -> producer.send(message, (all, m, arg) -> all.get((Integer) arg), at));
                Check.equal(queues.get(at).getQueueId(), result.getMessageQueue().getQueueId(), "selected queue");
            }
            stored(producer, topic, 1 + 3 * queues.size());
        });
    }

    static void batch(Lab lab) throws Exception {
        DefaultMQProducer producer = lab.producer();
        promptly(lab, "again_batch", (topic, clock) -> {
            List<Message> list = new ArrayList<>();
            for (int i = 0; i < 5; i++) {
                list.add(Lab.message(topic, "tag", "key" + i, "again-" + i));
            }
            for (int i = 0; i < 3; i++) {
                clock.answer(() -> producer.send(list));
            }
            stored(producer, topic, 3 * list.size());
        });
    }

    /** One object by the connections of two clients in turn. */
    static void producers(Lab lab) throws Exception {
        DefaultMQProducer[] producers = {lab.producer(), lab.producer()};
        promptly(lab, "again_producers", (topic, clock) -> {
            Message message = Lab.message(topic, "tag", "key", "again");
            for (int i = 0; i < TIMES; i++) {
                DefaultMQProducer producer = producers[i % 2];
                clock.answer(() -> producer.send(message));
            }
            stored(producers[0], topic, TIMES);
        });
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
