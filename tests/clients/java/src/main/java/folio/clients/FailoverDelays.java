package folio.clients;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.ArrayList;
import java.util.Map;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * In flight while the leader is killed, like {@link Failover}: a producer delays every message by a level, and a consumer fails some of
 * them the first time, so that they wait once more. Whatever was acknowledged comes, not early. What did not fail is stored once, which
 * RocketMQ does not promise: this runs where --exactly-once asks for it.
 */
final class FailoverDelays implements Scenario {
    static final String NAME = "failover-delays";
    private static final int ACKED_AFTER_KILL = 200;
    /** By level: a second, five. */
    private static final long[] DELAYS_MS = {1_000, 5_000};
    private static final int FAILS_EVERY = 7;

    private final Map<String, Long> acked = new ConcurrentHashMap<>();
    private final Map<String, Long> failed = new ConcurrentHashMap<>();
    private final Queue<String> early = new ConcurrentLinkedQueue<>();
    private final AtomicBoolean stop = new AtomicBoolean();
    private volatile String lastFailure = "none";

    @Override
    public void run(Lab lab) throws Exception {
        String topic = lab.topic(NAME);
        DefaultMQProducer producer = lab.producer();
        producer.setRetryTimesWhenSendFailed(5);
        producer.setSendMsgTimeout(3_000);
        Lab.ok(producer.send(Lab.message(topic, "tag", null, "first")));
        Inbox inbox = new Inbox();
        consume(lab, topic, inbox);
        Thread sender = new Thread(() -> sendAll(producer, topic));
        sender.start();
        lab.closing(() -> stop.set(true));
        Check.until("delayed messages consumed, and failed ones again", () -> inbox.size() >= 100 && failed.size() >= 10);
        Main.report("READY");
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8)).readLine();
        int atKill = acked.size();
        Check.until(ACKED_AFTER_KILL + " acknowledged after the kill, last failure " + lastFailure, () ->
            acked.size() >= atKill + ACKED_AFTER_KILL);
        Thread.sleep(5_000);
        stop.set(true);
        sender.join();
        inbox.await(new ArrayList<>(acked.keySet()));
        Check.that(early.isEmpty(), early.size() + " came early, first " + early.peek());
        List<String> twice = inbox.storedTwice();
        // Where an answer to a send-back is lost, its client sends a retry by itself.
        twice.removeIf(text -> failed.containsKey(text.split(" ")[0]));
        Check.that(twice.isEmpty(), twice.size() + " stored twice, first " + (twice.isEmpty() ? "" : twice.get(0)));
        Main.report("NOTE " + NAME + " acked " + acked.size() + " (" + (acked.size() - atKill) + " after the kill), "
            + failed.size() + " failed and came again, " + inbox.repeats() + " delivered again");
    }

    private void consume(Lab lab, String topic, Inbox inbox) throws Exception {
        Set<String> came = ConcurrentHashMap.newKeySet();
        DefaultMQPushConsumer consumer = lab.push(lab.group(NAME));
        consumer.subscribe(topic, "*");
        consumer.setConsumeMessageBatchMaxSize(1);
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            MessageExt message = messages.get(0);
            String text = Inbox.text(message);
            long now = System.currentTimeMillis();
            boolean isFirst = message.getReconsumeTimes() == 0;
            if (isFirst && fails(text)) {
                failed.putIfAbsent(text, now);
                context.setDelayLevelWhenNextConsume(1);
                return ConsumeConcurrentlyStatus.RECONSUME_LATER;
            }
            Long since = failed.get(text);
            if (!isFirst && since != null && came.add(text) && now - since < DELAYS_MS[0]) {
                early.add("the retry of " + text + ", after " + (now - since) + " ms");
            }
            // The send of this time began before.
            long bornMs = message.getBornTimestamp();
            if (isFirst && number(text) >= 0 && now - bornMs < delayMs(number(text))) {
                early.add(text + ", after " + (now - bornMs) + " ms");
            }
            inbox.add(message);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        inbox.await(List.of("first"));
    }

    private void sendAll(DefaultMQProducer producer, String topic) {
        for (int i = 0; !stop.get(); i++) {
            String payload = "delayed-" + i;
            Message message = Lab.message(topic, "tag", null, payload);
            message.setDelayTimeLevel(1 + i % DELAYS_MS.length);
            try {
                Lab.ok(producer.send(message));
                acked.put(payload, System.currentTimeMillis());
                Thread.sleep(5);
            } catch (Exception | AssertionError e) {
                lastFailure = e.toString();
            }
        }
    }

    /** Of a delayed message; -1 of another. */
    private static int number(String text) {
        return text.startsWith("delayed-") ? Integer.parseInt(text.substring("delayed-".length())) : -1;
    }

    private static boolean fails(String text) {
        return number(text) >= 0 && number(text) % FAILS_EVERY == 0;
    }

    private static long delayMs(int number) {
        return DELAYS_MS[number % DELAYS_MS.length];
    }
}
