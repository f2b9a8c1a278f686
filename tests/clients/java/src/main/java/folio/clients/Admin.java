package folio.clients;

import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.apache.rocketmq.client.QueryResult;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.MessageExt;

/** What an ordinary client may ask besides sending and consuming. */
final class Admin {
    private Admin() {}

    /** A topic made with 8 queues has 8 in its route, and all of them take messages. */
    static void createTopic(Lab lab) throws Exception {
        String topic = lab.topic("created");
        DefaultMQProducer producer = lab.producer();
        Versions.createTopic(producer, topic, 8);
        Check.until("8 queues in the route of a created topic", () -> {
            try {
                return producer.fetchPublishMessageQueues(topic).size() % 8 == 0;
            } catch (MQClientException notYet) {
                return false;
            }
        });
        Set<Integer> queues = new HashSet<>();
        for (int i = 0; i < 32; i++) {
            queues.add(Lab.ok(producer.send(Lab.message(topic, "tag", null, "m" + i))).getMessageQueue().getQueueId());
        }
        Check.equal(8, queues.size(), "queues that took messages");
    }

    /** A message by the id that carries its place, and by its unique id. */
    static void viewMessage(Lab lab) throws Exception {
        String topic = lab.topic("view");
        DefaultMQProducer producer = lab.producer();
        SendResult result = Lab.ok(producer.send(Lab.message(topic, "TagV", "keyV", "view me")));
        MessageExt[] found = new MessageExt[1];
        Check.until("view by offset id", () -> (found[0] = view(producer, topic, result.getOffsetMsgId())) != null);
        check(found[0], topic, result);
    }

    /** A message by the id its producer gave it: the client asks every broker of the topic. */
    static void queryByUniqueId(Lab lab) throws Exception {
        String topic = lab.topic("unique");
        DefaultMQProducer producer = lab.producer();
        SendResult result = Lab.ok(producer.send(Lab.message(topic, "TagV", "keyV", "view me")));
        MessageExt[] found = new MessageExt[1];
        Check.until("view by unique id", () -> (found[0] = view(producer, topic, result.getMsgId())) != null);
        check(found[0], topic, result);
    }

    private static MessageExt view(DefaultMQProducer producer, String topic, String id) throws Exception {
        try {
            return producer.viewMessage(topic, id);
        } catch (MQClientException notYetIndexed) {
            return null;
        }
    }

    private static void check(MessageExt message, String topic, SendResult result) {
        Check.equal("view me", Inbox.text(message), "body");
        Check.equal(topic, message.getTopic(), "topic");
        Check.equal("TagV", message.getTags(), "tag");
        Check.equal("keyV", message.getKeys(), "key");
        Check.equal(result.getQueueOffset(), message.getQueueOffset(), "queue offset");
        Check.equal(result.getMessageQueue().getQueueId(), message.getQueueId(), "queue");
    }

    /** Messages by key: those that carry it, among several keys of one message too, and no others. */
    static void queryByKey(Lab lab) throws Exception {
        String topic = lab.topic("query");
        DefaultMQProducer producer = lab.producer();
        long start = System.currentTimeMillis();
        Lab.ok(producer.send(Lab.message(topic, "tag", "order-1", "one")));
        Lab.ok(producer.send(Lab.message(topic, "tag", "order-2", "two")));
        Lab.ok(producer.send(Lab.message(topic, "tag", "order-3 order-1", "three")));
        Inbox inbox = new Inbox();
        Check.until("both messages found by their key", () -> {
            try {
                QueryResult result =
                    producer.queryMessage(topic, "order-1", 32, start - 60_000, System.currentTimeMillis() + 60_000);
                inbox.addAll(result.getMessageList());
            } catch (MQClientException notYetIndexed) {
                return false;
            }
            return inbox.missing(List.of("one", "three")).isEmpty();
        });
        Check.equal(2, inbox.size(), "messages with the key");
        Check.fails("a query for a key that nobody set", () ->
            producer.queryMessage(topic, "no-such-key", 32, start - 60_000, start + 60_000));
    }
}
