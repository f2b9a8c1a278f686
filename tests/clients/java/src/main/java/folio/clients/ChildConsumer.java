package folio.clients;

import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;

/** A push consumer as a process of its own, there to be killed. Prints "got PAYLOAD" per message. */
public final class ChildConsumer {
    private ChildConsumer() {}

    /** Arguments: name servers, group, topic. */
    public static void main(String[] args) throws Exception {
        Lab lab = new Lab(args[0], "");
        DefaultMQPushConsumer consumer = lab.push(args[1]);
        consumer.setInstanceName("child" + ProcessHandle.current().pid());
        consumer.subscribe(args[2], "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(message -> System.out.println("got " + Inbox.text(message)));
            System.out.flush();
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
    }
}
