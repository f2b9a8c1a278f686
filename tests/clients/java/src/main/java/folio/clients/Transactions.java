package folio.clients;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.client.producer.TransactionSendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * Transactional messages: what a payload begins with says what its producer does. "commit" and "rollback" are said at once,
 * "unknown-commit" and "unknown-rollback" when the broker asks.
 */
final class Transactions {
    static final String FAILOVER = "failover-transaction";
    private static final int EACH = 20;
    private static final long AFTER_KILL_MS = 8_000;
    private static final int AFTER_KILL = 200;

    private Transactions() {}

    /** Says what the payload wants, and counts the questions. */
    private static final class Teller implements TransactionListener {
        final Map<String, AtomicInteger> asked = new ConcurrentHashMap<>();
        final Map<String, String> wrong = new ConcurrentHashMap<>();

        @Override
        public LocalTransactionState executeLocalTransaction(Message message, Object wanted) {
            return state(new String(message.getBody(), StandardCharsets.UTF_8));
        }

        @Override
        public LocalTransactionState checkLocalTransaction(MessageExt message) {
            String payload = Inbox.text(message);
            asked.computeIfAbsent(payload, p -> new AtomicInteger()).incrementAndGet();
            if (message.getTransactionId() == null || !payload.equals(message.getKeys())) {
                wrong.put(payload, "transaction " + message.getTransactionId() + ", keys " + message.getKeys());
            }
            return state(payload.startsWith("unknown-") ? payload.substring("unknown-".length()) : payload);
        }

        private static LocalTransactionState state(String payload) {
            if (payload.startsWith("commit")) {
                return LocalTransactionState.COMMIT_MESSAGE;
            }
            return payload.startsWith("rollback") ? LocalTransactionState.ROLLBACK_MESSAGE : LocalTransactionState.UNKNOW;
        }
    }

    private static TransactionMQProducer producer(Lab lab, Teller teller, String name) throws Exception {
        TransactionMQProducer producer = lab.configure(new TransactionMQProducer(lab.group(name)));
        producer.setTransactionListener(teller);
        producer.setRetryTimesWhenSendFailed(5);
        producer.setSendMsgTimeout(30_000);
        producer.start();
        lab.closing(producer::shutdown);
        return producer;
    }

    /** What is committed comes once, at once or after a question; what is rolled back never comes. */
    static void ends(Lab lab) throws Exception {
        String topic = lab.topic("transaction");
        Teller teller = new Teller();
        TransactionMQProducer producer = producer(lab, teller, "tellers");
        List<String> wanted = new ArrayList<>();
        for (int i = 0; i < EACH; i++) {
            for (String kind : new String[] {"commit-", "rollback-", "unknown-commit-", "unknown-rollback-"}) {
                String payload = kind + i;
                TransactionSendResult sent = producer.sendMessageInTransaction(Lab.message(topic, "tag", payload, payload), null);
                Lab.ok(sent);
                Check.that(sent.getTransactionId() != null, "no transaction id");
                if (kind.endsWith("commit-")) {
                    wanted.add(payload);
                }
            }
        }
        Inbox inbox = new Inbox();
        lab.pushInto(inbox, lab.group("transaction"), topic, "*");
        inbox.await(wanted);
        Check.until("every rollback asked about", () -> asked(teller, "unknown-rollback-") == EACH);
        // What is wrong would come now.
        Thread.sleep(3_000);
        Check.equal(wanted.size(), inbox.size(), "distinct messages");
        Check.equal(0, inbox.storedTwice().size(), "messages stored twice");
        Check.that(teller.wrong.isEmpty(), "asked with another message: " + teller.wrong);
        Check.equal(0, asked(teller, "commit-") + asked(teller, "rollback-"), "questions about what was ended");
        Check.equal("tag", inbox.message("commit-0").getTags(), "tag");
        Check.equal("unknown-commit-0", inbox.message("unknown-commit-0").getKeys(), "keys");
    }

    private static int asked(Teller teller, String prefix) {
        return (int) teller.asked.keySet().stream().filter(payload -> payload.startsWith(prefix)).count();
    }

    /** In flight while the leader is killed: see {@link Failover}. Ends are sent oneway, and some are lost with the leader. */
    static void failover(Lab lab) throws Exception {
        String topic = lab.topic(FAILOVER);
        Teller teller = new Teller();
        TransactionMQProducer producer = producer(lab, teller, FAILOVER);
        producer.setSendMsgTimeout(3_000);
        List<String> committed = Collections.synchronizedList(new ArrayList<>());
        AtomicBoolean stop = new AtomicBoolean();
        AtomicLong failed = new AtomicLong();
        Thread sender = new Thread(() -> {
            for (int i = 0; !stop.get(); i++) {
                String payload = (i % 3 == 0 ? "rollback-" : i % 7 == 0 ? "unknown-commit-" : "commit-") + i;
                try {
                    TransactionSendResult sent = producer.sendMessageInTransaction(Lab.message(topic, "tag", payload, payload), null);
                    if (sent.getSendStatus() == SendStatus.SEND_OK && !payload.startsWith("rollback")) {
                        committed.add(payload);
                    }
                    Thread.sleep(5);
                } catch (Exception e) {
                    failed.incrementAndGet();
                }
            }
        });
        sender.start();
        lab.closing(() -> stop.set(true));
        Check.until("transactions flowing", () -> committed.size() >= 50);
        Inbox inbox = new Inbox();
        lab.pushInto(inbox, lab.group(FAILOVER), topic, "*");
        Check.until("messages consumed", () -> inbox.size() >= 20);
        Main.report("READY");
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8)).readLine();
        int atKill = committed.size();
        Thread.sleep(AFTER_KILL_MS);
        Check.until("committed after the kill", () -> committed.size() >= atKill + AFTER_KILL);
        stop.set(true);
        sender.join();
        inbox.await(new ArrayList<>(committed));
        Check.that(!inbox.hasPrefix("rollback-"), "a transaction that was rolled back is visible");
        List<String> twice = inbox.storedTwice();
        Check.that(twice.isEmpty(), twice.size() + " stored twice, first " + (twice.isEmpty() ? "" : twice.get(0)));
        Main.report("NOTE " + FAILOVER + " committed " + committed.size() + " (" + (committed.size() - atKill) + " after the kill), "
            + failed + " failed, " + teller.asked.size() + " asked about");
    }
}
