package folio.clients;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;

/**
 * In flight while the leader is killed: a producer sends unique payloads all the time with the client's own
 * retries, a push consumer reads. Says READY, waits for a line on standard input (the kill is done), goes on
 * until enough was acknowledged again. Every payload acknowledged with SEND_OK must be consumed.
 *
 * With resends, a message whose send failed is sent again as the same object until it is acknowledged, as applications do, and
 * each must be stored once. RocketMQ does not promise that: it runs where --exactly-once asks for it.
 */
final class Failover implements Scenario {
    static final String NAME = "failover";
    static final String RESEND = "failover-resend";
    private static final int ACKED_AFTER_KILL = 300;
    private static final long AFTER_KILL_MS = 8_000;

    private final List<String> acked = Collections.synchronizedList(new ArrayList<>());
    private final AtomicLong failed = new AtomicLong();
    private final AtomicLong gapMs = new AtomicLong();
    private final AtomicBoolean stop = new AtomicBoolean();
    private volatile String lastFailure = "none";
    private final String name;
    private final boolean resends;

    Failover(String name, boolean resends) {
        this.name = name;
        this.resends = resends;
    }

    @Override
    public void run(Lab lab) throws Exception {
        String topic = lab.topic(name);
        DefaultMQProducer producer = lab.producer();
        producer.setRetryTimesWhenSendFailed(5);
        producer.setSendMsgTimeout(3_000);
        Thread sender = new Thread(() -> sendAll(producer, topic));
        sender.start();
        lab.closing(() -> stop.set(true));
        Check.until("messages flowing", () -> acked.size() >= 10);
        Inbox inbox = new Inbox();
        lab.pushInto(inbox, lab.group(name), topic, "*");
        Check.until("messages consumed", () -> acked.size() >= 100 && inbox.size() >= 50);
        failed.set(0);
        gapMs.set(0);
        Main.report("READY");
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8)).readLine();
        int atKill = acked.size();
        Thread.sleep(AFTER_KILL_MS);
        Check.until(ACKED_AFTER_KILL + " acknowledged after the kill, last failure " + lastFailure, () ->
            acked.size() >= atKill + ACKED_AFTER_KILL);
        stop.set(true);
        sender.join();
        inbox.await(new ArrayList<>(acked));
        List<String> twice = inbox.storedTwice();
        Check.that(!resends || twice.isEmpty(), twice.size() + " stored twice, first " + (twice.isEmpty() ? "" : twice.get(0)));
        Main.report("NOTE " + name + " acked " + acked.size() + " (" + (acked.size() - atKill) + " after the kill), "
            + failed + " failed, longest time without an acknowledgement " + gapMs + " ms, " + inbox.repeats()
            + " delivered again");
    }

    private SendResult send(DefaultMQProducer producer, Message message) throws Exception {
        while (true) {
            try {
                return producer.send(message);
            } catch (Exception e) {
                if (!resends || stop.get()) {
                    throw e;
                }
                failed.incrementAndGet();
                lastFailure = e.toString();
                pause();
            }
        }
    }

    private static void pause() {
        LockSupport.parkNanos(2_000_000);
    }

    private void sendAll(DefaultMQProducer producer, String topic) {
        long last = System.nanoTime();
        for (int i = 0; !stop.get(); i++) {
            String payload = "flight-" + i;
            Message message = Lab.message(topic, "tag", null, payload);
            try {
                SendResult result = send(producer, message);
                if (result.getSendStatus() == SendStatus.SEND_OK) {
                    acked.add(payload);
                    long now = System.nanoTime();
                    long gap = (now - last) / 1_000_000;
                    gapMs.accumulateAndGet(gap, Math::max);
                    last = now;
                }
                pause();
            } catch (Exception e) {
                failed.incrementAndGet();
                lastFailure = e.toString();
                // A refused connection fails at once: do not spin.
                pause();
            }
        }
    }
}
