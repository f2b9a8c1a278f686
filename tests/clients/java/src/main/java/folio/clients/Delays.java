package folio.clients;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** Messages that are to come later. Times are those of this machine: when a send began, and when its message came. */
final class Delays {
    /** RocketMQ delivers at a time up to one step of its timer early (timerPrecisionMs). */
    private static final long STEP_MS = 1_000;

    private Delays() {}

    /** By delay levels: 1 is a second, 2 are five. */
    static void levels(Lab lab) throws Exception {
        String topic = lab.topic("level");
        Run run = new Run(lab, "level", 0);
        for (int i = 0; i < 12; i++) {
            int level = 1 + i % 2;
            Message message = Lab.message(topic, "tag", null, "level-" + i);
            message.setDelayTimeLevel(level);
            run.send(message, "level-" + i, level == 1 ? 1_000 : 5_000);
        }
        run.check();
    }

    /** By a time: so much later, or at that time; one whose time has passed comes at once. */
    static void times(Lab lab) throws Exception {
        String topic = lab.topic("time");
        Run run = new Run(lab, "time", STEP_MS);
        for (int i = 0; i < 12; i++) {
            Message message = Lab.message(topic, "tag", null, "time-" + i);
            long delayMs = new long[] {3_000, 5_000, 7_000, 0}[i % 4];
            switch (i % 4) {
                case 0:
                    Versions.timed(message, "setDelayTimeMs", delayMs);
                    break;
                case 1:
                    Versions.timed(message, "setDelayTimeSec", delayMs / 1_000);
                    break;
                case 2:
                    Versions.timed(message, "setDeliverTimeMs", System.currentTimeMillis() + delayMs);
                    break;
                default:
                    Versions.timed(message, "setDeliverTimeMs", System.currentTimeMillis() - 60_000);
            }
            run.send(message, "time-" + i, delayMs);
        }
        run.check();
    }

    /** Half of the messages are recalled, and only the others come. */
    static void recall(Lab lab) throws Exception {
        String topic = lab.topic("recall");
        Run run = new Run(lab, "recall", STEP_MS);
        List<String> unwanted = new ArrayList<>();
        for (int i = 0; i < 10; i++) {
            String payload = "recall-" + i;
            Message message = Lab.message(topic, "tag", null, payload);
            // Long enough to recall it on however busy a machine.
            Versions.timed(message, "setDelayTimeMs", 30_000);
            SendResult sent = run.send(message, payload, 30_000);
            if (i % 2 == 0) {
                String id = Versions.recall(run.producer, topic, Versions.recallHandle(sent));
                Check.equal(sent.getMsgId(), id, "id of the recalled message");
                run.expected.remove(payload);
                unwanted.add(payload);
            }
        }
        run.check();
        for (String payload : unwanted) {
            Check.that(!run.inbox.has(payload), payload + " came, and was recalled");
        }
    }

    /** Messages on their way: a producer, a consumer, and when each message may come at the earliest. */
    private static final class Run {
        final DefaultMQProducer producer;
        final Inbox inbox = new Inbox();
        final Map<String, Long> expected = new HashMap<>();
        private final Map<String, Long> came = new ConcurrentHashMap<>();
        private final long toleranceMs;

        Run(Lab lab, String name, long toleranceMs) throws Exception {
            this.toleranceMs = toleranceMs;
            String topic = lab.topic(name);
            producer = lab.producer();
            // The topic exists before the consumer looks for it.
            Lab.ok(producer.send(Lab.message(topic, "tag", null, "first")));
            DefaultMQPushConsumer consumer = lab.push(lab.group(name));
            consumer.subscribe(topic, "*");
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                for (MessageExt message : messages) {
                    came.putIfAbsent(Inbox.text(message), System.currentTimeMillis());
                    inbox.add(message);
                }
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
            consumer.start();
            inbox.await(List.of("first"));
        }

        SendResult send(Message message, String payload, long delayMs) throws Exception {
            expected.put(payload, System.currentTimeMillis() + delayMs);
            return Lab.ok(producer.send(message));
        }

        /** All come, each is stored once, none comes early. */
        void check() throws Exception {
            inbox.await(expected.keySet());
            expected.forEach((payload, atMs) -> {
                long earlyMs = atMs - came.get(payload);
                Check.that(earlyMs <= toleranceMs, payload + " came " + earlyMs + " ms early");
                Check.that(inbox.message(payload).getTags().equals("tag"), "tag of " + payload);
            });
            Check.that(inbox.storedTwice().isEmpty(), "stored twice: " + inbox.storedTwice());
        }
    }
}
