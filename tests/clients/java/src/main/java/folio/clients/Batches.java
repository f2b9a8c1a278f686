package folio.clients;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;

/** Batches: one close to the limit of 4 MiB, and a list cut into several. */
final class Batches {
    private static final int BATCH_MAX = 4 * 1024 * 1024;

    private Batches() {}

    static void large(Lab lab) throws Exception {
        String topic = lab.topic("batch");
        DefaultMQProducer producer = lab.producer();
        sendAndCheck(producer, messages(topic, 0, 10, 100));
        sendAndCheck(producer, messages(topic, 10, 400, 10_000));
        consume(lab, topic, 410, 10);
    }

    static void split(Lab lab) throws Exception {
        String topic = lab.topic("split");
        DefaultMQProducer producer = lab.producer();
        List<Message> messages = messages(topic, 0, 1_000, 10_000);
        int batches = 0;
        for (ListSplitter splitter = new ListSplitter(messages, BATCH_MAX); splitter.hasNext(); batches++) {
            sendAndCheck(producer, splitter.next());
        }
        Check.equal(3, batches, "batches");
        consume(lab, topic, 1_000, 0);
    }

    /** One id per message comes back. */
    private static void sendAndCheck(DefaultMQProducer producer, List<Message> batch) throws Exception {
        SendResult result = Lab.ok(producer.send(batch));
        Check.equal(batch.size(), result.getMsgId().split(",").length, "ids of a batch");
        Check.equal(batch.size(), result.getOffsetMsgId().split(",").length, "offset ids of a batch");
    }

    private static List<Message> messages(String topic, int from, int count, int size) {
        List<Message> messages = new ArrayList<>();
        for (int i = from; i < from + count; i++) {
            byte[] body = Sends.noise(size);
            byte[] head = (i + ";").getBytes(StandardCharsets.UTF_8);
            System.arraycopy(head, 0, body, 0, head.length);
            Message message = new Message(topic, "tag", "key" + i, body);
            message.putUserProperty("n", String.valueOf(i));
            messages.add(message);
        }
        return messages;
    }

    /** All come, with whole bodies; those of one batch lie in one queue in their order. */
    private static void consume(Lab lab, String topic, int count, int firstLarge) throws Exception {
        Inbox inbox = new Inbox();
        Map<Integer, Long> offsets = new ConcurrentHashMap<>();
        DefaultMQPushConsumer consumer = lab.push(lab.group(topic));
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(message -> {
                byte[] body = message.getBody();
                int n = Integer.parseInt(message.getUserProperty("n"));
                byte[] expected = Sends.noise(n < firstLarge ? 100 : 10_000);
                int head = String.valueOf(n).length() + 1;
                boolean whole = body.length == expected.length
                    && Arrays.equals(body, head, body.length, expected, head, body.length)
                    && ("key" + n).equals(message.getKeys());
                inbox.add(whole ? String.valueOf(n) : "damaged " + n);
                offsets.put(n, message.getQueueId() * 1_000_000_000L + message.getQueueOffset());
            });
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        List<String> expected = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            expected.add(String.valueOf(i));
        }
        inbox.await(expected);
        Check.equal(count, inbox.size(), "distinct messages");
        for (int i = 1; i < Math.min(count, firstLarge); i++) {
            Check.equal(offsets.get(i - 1) + 1, offsets.get(i), "place of message " + i + " of a batch");
        }
        Check.equal(count, new TreeSet<>(offsets.values()).size(), "distinct places");
    }
}
