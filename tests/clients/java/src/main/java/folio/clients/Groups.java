package folio.clients;

import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.DefaultMQProducer;

/** Push consumers: concurrent, orderly, broadcasting, filtering, and a group whose members come and go. */
final class Groups {
    private Groups() {}

    /** What was there before the consumer, and what comes while it runs. */
    static void concurrent(Lab lab) throws Exception {
        String topic = lab.topic("concurrent");
        DefaultMQProducer producer = lab.producer();
        List<String> sent = new ArrayList<>(Lab.send(producer, topic, "before", 100));
        Inbox inbox = new Inbox();
        lab.pushInto(inbox, lab.group("concurrent"), topic, "*");
        sent.addAll(Lab.send(producer, topic, "during", 100));
        inbox.await(sent);
        Check.equal(sent.size(), inbox.size(), "distinct payloads");
    }

    /** Per key, message n+1 is never seen before message n; two consumers share the queues. */
    static void orderly(Lab lab) throws Exception {
        String topic = lab.topic("orderly");
        int keys = 10;
        int perKey = 30;
        DefaultMQProducer producer = lab.producer();
        List<String> sent = new ArrayList<>();
        Inbox inbox = new Inbox();
        Map<String, Integer> last = new ConcurrentHashMap<>();
        AtomicReference<String> disorder = new AtomicReference<>();
        for (int n = 0; n < perKey; n++) {
            for (int key = 0; key < keys; key++) {
                String payload = "k" + key + ":" + n;
                Lab.ok(producer.send(Lab.message(topic, "tag", "k" + key, payload), (queues, message, arg) ->
                    queues.get((Integer) arg % queues.size()), key));
                sent.add(payload);
            }
            if (n == perKey / 2) {
                orderlyConsumer(lab, topic, inbox, last, disorder);
                orderlyConsumer(lab, topic, inbox, last, disorder);
            }
        }
        inbox.await(sent);
        Check.that(disorder.get() == null, "out of order: " + disorder.get());
    }

    private static void orderlyConsumer(Lab lab, String topic, Inbox inbox, Map<String, Integer> last,
        AtomicReference<String> disorder) throws Exception {
        DefaultMQPushConsumer consumer = lab.push(lab.group("orderly"));
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            messages.forEach(message -> {
                String[] parts = Inbox.text(message).split(":");
                int n = Integer.parseInt(parts[1]);
                int before = last.getOrDefault(parts[0], -1);
                if (n > before + 1) {
                    disorder.compareAndSet(null, parts[0] + ": " + n + " after " + before);
                }
                last.put(parts[0], Math.max(n, before));
                inbox.add(message);
            });
            return ConsumeOrderlyStatus.SUCCESS;
        });
        consumer.start();
    }

    /** Each of two consumers gets every message. */
    static void broadcast(Lab lab) throws Exception {
        String topic = lab.topic("broadcast");
        DefaultMQProducer producer = lab.producer();
        List<String> sent = new ArrayList<>(Lab.send(producer, topic, "before", 20));
        List<Inbox> inboxes = List.of(new Inbox(), new Inbox());
        for (Inbox inbox : inboxes) {
            DefaultMQPushConsumer consumer = lab.push(lab.group("broadcast"));
            Versions.broadcasting(consumer);
            consumer.subscribe(topic, "*");
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                inbox.addAll(messages);
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
            consumer.start();
        }
        sent.addAll(Lab.send(producer, topic, "during", 40));
        for (Inbox inbox : inboxes) {
            inbox.await(sent);
        }
    }

    /** Of three tags the two subscribed to come, the third does not. */
    static void tags(Lab lab) throws Exception {
        String topic = lab.topic("tags");
        DefaultMQProducer producer = lab.producer();
        List<String> wanted = new ArrayList<>();
        for (int i = 0; i < 90; i++) {
            String tag = "abc".substring(i % 3, i % 3 + 1);
            Lab.ok(producer.send(Lab.message(topic, tag, null, tag + i)));
            if (!tag.equals("c")) {
                wanted.add(tag + i);
            }
        }
        Inbox inbox = new Inbox();
        lab.pushInto(inbox, lab.group("tags"), topic, "a || b");
        inbox.await(wanted);
        Lab.ok(producer.send(Lab.message(topic, "c", null, "c-late")));
        Lab.ok(producer.send(Lab.message(topic, "a", null, "a-late")));
        inbox.await(List.of("a-late"));
        Check.equal(wanted.size() + 1, inbox.size(), "distinct payloads with tag a or b");
    }

    /** Two consumers share the queues; one leaves in good order, the other has all of them. */
    static void shutDown(Lab lab) throws Exception {
        String topic = lab.topic("leave");
        String group = lab.group("leave");
        DefaultMQProducer producer = lab.producer();
        List<String> sent = new ArrayList<>(Lab.send(producer, topic, "first", 4));
        Inbox stays = new Inbox();
        Inbox leaves = new Inbox();
        lab.pushInto(stays, group, topic, "*");
        DefaultMQPushConsumer leaver = lab.pushInto(leaves, group, topic, "*");
        share(producer, topic, sent, () -> stays.size(), () -> leaves.size());
        leaver.shutdown();
        int atEnd = leaves.size();
        List<String> after = Lab.send(producer, topic, "after", 40);
        stays.await(after);
        Check.equal(atEnd, leaves.size(), "messages of the consumer that left");
        Check.until("every message consumed by one of the two", () ->
            stays.missing(leaves.missing(sent)).isEmpty());
    }

    /** As above, but the one that goes is a process of its own and is killed. */
    static void killed(Lab lab) throws Exception {
        String topic = lab.topic("killed");
        String group = lab.group("killed");
        DefaultMQProducer producer = lab.producer();
        List<String> sent = new ArrayList<>(Lab.send(producer, topic, "first", 4));
        Inbox stays = new Inbox();
        Inbox dies = new Inbox();
        lab.pushInto(stays, group, topic, "*");
        Process child = child(lab, group, topic, dies);
        share(producer, topic, sent, () -> stays.size(), () -> dies.size());
        child.destroyForcibly().waitFor();
        List<String> after = Lab.send(producer, topic, "after", 40);
        stays.await(after);
        Check.until("every message consumed by one of the two", () ->
            stays.missing(dies.missing(sent)).isEmpty());
    }

    /** Sends until both have got messages after the last rebalance. */
    private static void share(DefaultMQProducer producer, String topic, List<String> sent,
        Callable<Integer> one, Callable<Integer> other) throws Exception {
        int[] round = {0};
        Check.until("both consumers get a share", () -> {
            int oneBefore = one.call();
            int otherBefore = other.call();
            sent.addAll(Lab.send(producer, topic, "round" + round[0]++, 16));
            Thread.sleep(300);
            return one.call() > oneBefore && other.call() > otherBefore;
        });
    }

    private static Process child(Lab lab, String group, String topic, Inbox inbox) throws Exception {
        Process child = new ProcessBuilder(System.getProperty("java.home") + File.separator + "bin" + File.separator
            + "java", "-XX:TieredStopAtLevel=1", "-Duser.home=" + System.getProperty("user.home"), "-cp",
            System.getProperty("java.class.path"), ChildConsumer.class.getName(), lab.namesrv, group, topic)
            .redirectError(ProcessBuilder.Redirect.INHERIT).start();
        lab.closing(child::destroyForcibly);
        BufferedReader out = new BufferedReader(new InputStreamReader(child.getInputStream(), StandardCharsets.UTF_8));
        Thread reader = new Thread(() -> out.lines().filter(line -> line.startsWith("got "))
            .forEach(line -> inbox.add(line.substring(4))));
        reader.setDaemon(true);
        reader.start();
        return child;
    }

    /** A consumer that was shut down goes on where it stopped: the rest comes, what it had does not. */
    static void restart(Lab lab) throws Exception {
        String topic = lab.topic("restart");
        String group = lab.group("restart");
        DefaultMQProducer producer = lab.producer();
        List<String> half = Lab.send(producer, topic, "half", 60);
        Inbox first = new Inbox();
        DefaultMQPushConsumer consumer = lab.pushInto(first, group, topic, "*");
        first.await(half);
        consumer.shutdown();
        List<String> rest = Lab.send(producer, topic, "rest", 60);
        Thread.sleep(500);
        Inbox second = new Inbox();
        lab.pushInto(second, group, topic, "*");
        second.await(rest);
        Check.equal(rest.size(), second.size(), "distinct payloads after the restart");
    }
}
