package folio.clients;

import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;

/** What the server must refuse, with RocketMQ's code. */
final class Refusals {
    private static final int MESSAGE_ILLEGAL = 13;
    private static final int TOPIC_NOT_EXIST = 17;
    private static final int INVALID_PARAMETER = 29;

    private Refusals() {}

    /** The client's own limit is raised, so that the server has to say no; the next send works. */
    static void tooLarge(Lab lab) throws Exception {
        String topic = lab.topic("large");
        DefaultMQProducer producer = lab.producer();
        producer.setMaxMessageSize(16 * 1024 * 1024);
        Lab.send(producer, topic, "before", 1);
        Message large = new Message(topic, Sends.noise(5 * 1024 * 1024));
        Check.refused(MESSAGE_ILLEGAL, "a body of 5 MiB", () -> producer.send(large));
        Lab.send(producer, topic, "after", 1);
    }

    /** Names with forbidden characters, too long ones and those of the system take no message. */
    static void topicName(Lab lab) throws Exception {
        DefaultMQProducer producer = lab.producer();
        Check.fails("a send to a topic with a blank", () ->
            producer.send(Lab.message("not a topic", "tag", null, "x")));
        Check.fails("a send to a topic of 128 characters", () ->
            producer.send(Lab.message("x".repeat(128), "tag", null, "x")));
        Check.fails("a send to SCHEDULE_TOPIC_XXXX", () ->
            producer.send(Lab.message("SCHEDULE_TOPIC_XXXX", "tag", null, "x")));
        Check.fails("making a system topic", () -> {
            Versions.createTopic(producer, "RMQ_SYS_TRANS_HALF_TOPIC", 4);
            return "made";
        });
    }

    /** Pulls of a topic and of a queue that do not exist. */
    static void pull(Lab lab) throws Exception {
        String topic = lab.topic("pullerror");
        DefaultMQProducer producer = lab.producer();
        MessageQueue queue = Lab.ok(producer.send(Lab.message(topic, "tag", null, "x"))).getMessageQueue();
        DefaultMQPullConsumer consumer = lab.pull(lab.group("pullerror"));
        Check.equal(PullStatus.FOUND, consumer.pull(queue, "*", 0, 1).getPullStatus(), "a pull that is right");
        Check.fails("queues of a topic that does not exist", () ->
            consumer.fetchSubscribeMessageQueues(lab.topic("missing")));
        Check.refused(TOPIC_NOT_EXIST, "a pull of a topic that does not exist", () ->
            consumer.pull(new MessageQueue(lab.topic("missing"), queue.getBrokerName(), 0), "*", 0, 1));
        Check.refused(INVALID_PARAMETER, "a pull of queue 99", () ->
            consumer.pull(new MessageQueue(topic, queue.getBrokerName(), 99), "*", 0, 1));
    }

    /** A group that never committed has no position: -1, which the client makes of QUERY_NOT_FOUND. */
    static void unknownOffset(Lab lab) throws Exception {
        String topic = lab.topic("nooffset");
        DefaultMQProducer producer = lab.producer();
        MessageQueue queue = Lab.ok(producer.send(Lab.message(topic, "tag", null, "x"))).getMessageQueue();
        DefaultMQPullConsumer consumer = lab.pull(lab.group("nooffset"));
        MessageQueue missing = new MessageQueue(topic, queue.getBrokerName(), 99);
        Check.equal(-1L, consumer.fetchConsumeOffset(missing, true), "position in a queue that does not exist");
        // A queue whose first message is still in memory may answer 0 as well.
        long position = consumer.fetchConsumeOffset(queue, true);
        Check.that(position == -1 || position == 0, "position of a group that never committed: " + position);
    }
}
