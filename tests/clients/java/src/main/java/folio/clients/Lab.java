package folio.clients;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;

/**
 * What one scenario works with: names no other run has, and clients set as a user who wants quick
 * failover sets them, all shut down when the scenario ends. Every client gets an instance name of its
 * own, so that clients of one process share no connection.
 */
final class Lab implements AutoCloseable {
    private static final AtomicInteger INSTANCES = new AtomicInteger();

    final String namesrv;
    private final String suffix;
    private final List<Runnable> closers = new CopyOnWriteArrayList<>();

    Lab(String namesrv, String suffix) {
        this.namesrv = namesrv;
        this.suffix = suffix;
    }

    String topic(String name) {
        return "t_" + name + "_" + suffix;
    }

    String group(String name) {
        return "g_" + name + "_" + suffix;
    }

    <T extends ClientConfig> T configure(T client) {
        client.setNamesrvAddr(namesrv);
        client.setInstanceName("c" + INSTANCES.incrementAndGet());
        client.setPollNameServerInterval(1_000);
        // A 5.3 consumer raises its subscription's version at each rebalance, and a server that keeps to
        // the letter refuses its pulls until the next heartbeat tells it so.
        client.setHeartbeatBrokerInterval(3_000);
        client.setPersistConsumerOffsetInterval(1_000);
        return client;
    }

    /** Registers something to end with the scenario. */
    void closing(Runnable closer) {
        closers.add(closer);
    }

    DefaultMQProducer producer() throws Exception {
        DefaultMQProducer producer = configure(new DefaultMQProducer(group("producer")));
        producer.setRetryTimesWhenSendFailed(3);
        producer.setRetryTimesWhenSendAsyncFailed(3);
        // All tries together: a disk may hang for seconds, and no scenario is about that.
        producer.setSendMsgTimeout(30_000);
        producer.start();
        closing(producer::shutdown);
        return producer;
    }

    /** A push consumer, not started, reading a new group from the first message on. */
    DefaultMQPushConsumer push(String group) {
        DefaultMQPushConsumer consumer = configure(new DefaultMQPushConsumer(group));
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        // Without it a shutdown stores its positions while the last messages are still being consumed.
        consumer.setAwaitTerminationMillisWhenShutdown(30_000);
        closing(consumer::shutdown);
        return consumer;
    }

    /** A started push consumer that puts all it gets into the inbox. */
    DefaultMQPushConsumer pushInto(Inbox inbox, String group, String topic, String tags) throws Exception {
        DefaultMQPushConsumer consumer = push(group);
        consumer.subscribe(topic, tags);
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            inbox.addAll(messages);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        return consumer;
    }

    DefaultMQPullConsumer pull(String group) throws Exception {
        DefaultMQPullConsumer consumer = configure(new DefaultMQPullConsumer(group));
        consumer.start();
        closing(consumer::shutdown);
        return consumer;
    }

    /** A lite pull consumer, not started. */
    DefaultLitePullConsumer litePull(String group) {
        DefaultLitePullConsumer consumer = configure(new DefaultLitePullConsumer(group));
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setAutoCommitIntervalMillis(1_000);
        consumer.setTopicMetadataCheckIntervalMillis(1_000);
        closing(consumer::shutdown);
        return consumer;
    }

    static Message message(String topic, String tag, String key, String payload) {
        return new Message(topic, tag, key, payload.getBytes(StandardCharsets.UTF_8));
    }

    static SendResult ok(SendResult result) {
        Check.equal(SendStatus.SEND_OK, result.getSendStatus(), "send status");
        return result;
    }

    /** Sends payloads "prefix-0" to "prefix-(count-1)" and returns them. */
    static List<String> send(DefaultMQProducer producer, String topic, String prefix, int count) throws Exception {
        List<String> sent = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            String payload = prefix + "-" + i;
            ok(producer.send(message(topic, "tag", payload, payload)));
            sent.add(payload);
        }
        return sent;
    }

    @Override
    public void close() {
        for (Runnable closer : closers) {
            try {
                closer.run();
            } catch (RuntimeException e) {
                e.printStackTrace();
            }
        }
    }
}
