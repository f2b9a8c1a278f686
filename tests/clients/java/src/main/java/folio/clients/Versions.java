package folio.clients;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.util.HashMap;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;

/** The calls that the 4.9 client lacks or has with another signature, found by reflection. */
final class Versions {
    private Versions() {}

    /** MessageModel moved to another package in 5.x. */
    static void broadcasting(DefaultMQPushConsumer consumer) throws Exception {
        Method setter = method(consumer.getClass(), "setMessageModel", 1);
        for (Object model : setter.getParameterTypes()[0].getEnumConstants()) {
            if (model.toString().equals("BROADCASTING")) {
                setter.invoke(consumer, model);
            }
        }
    }

    /** 5.x takes the topic's attributes as well. */
    static void createTopic(DefaultMQProducer producer, String topic, int queues) throws Exception {
        for (Method method : producer.getClass().getMethods()) {
            Class<?>[] types = method.getParameterTypes();
            if (!method.getName().equals("createTopic") || types.length < 3 || types[2] != int.class) {
                continue;
            }
            if (types.length == 3) {
                call(method, producer, "TBW102", topic, queues);
                return;
            }
            if (types.length == 4 && types[3] != int.class) {
                call(method, producer, "TBW102", topic, queues, new HashMap<String, String>());
                return;
            }
        }
        throw new MQClientException("this client has no createTopic", null);
    }

    /** Whether this client knows messages that are delayed to a time, and recalls. */
    static boolean hasTimes() {
        for (Method method : DefaultMQProducer.class.getMethods()) {
            if (method.getName().equals("recallMessage")) {
                return true;
            }
        }
        return false;
    }

    /** Delays a message by one of the setters of 5.x. */
    static void timed(Message message, String setter, long value) throws Exception {
        method(Message.class, setter, 1).invoke(message, value);
    }

    /** By what a delayed message is recalled. */
    static String recallHandle(SendResult sent) throws Exception {
        return (String) method(SendResult.class, "getRecallHandle", 0).invoke(sent);
    }

    /** Recalls a message and returns its id. */
    static String recall(DefaultMQProducer producer, String topic, String handle) throws Exception {
        try {
            return (String) method(producer.getClass(), "recallMessage", 2).invoke(producer, topic, handle);
        } catch (InvocationTargetException e) {
            throw e.getCause() instanceof Exception ? (Exception) e.getCause() : e;
        }
    }

    /** Whether consumers of this client can pop. */
    static boolean hasPop() {
        for (Method method : DefaultMQPushConsumer.class.getMethods()) {
            if (method.getName().equals("setClientRebalance")) {
                return true;
            }
        }
        return false;
    }

    /** Lets the broker assign the queues, and say whether they are pulled or popped. */
    static void serverRebalance(DefaultMQPushConsumer consumer) throws Exception {
        method(DefaultMQPushConsumer.class, "setClientRebalance", 1).invoke(consumer, false);
    }

    /** Tells a broker that the group pops from the topic, as an operator does. */
    static void setPopMode(DefaultMQPushConsumer consumer, String broker, String topic, String group) throws Exception {
        Object factory = get(consumer.getDefaultMQPushConsumerImpl(), "getmQClientFactory");
        String address = (String) method(factory.getClass(), "findBrokerAddressInPublish", 1).invoke(factory, broker);
        Object api = get(factory, "getMQClientAPIImpl");
        Method setter = method(api.getClass(), "setMessageRequestMode", 6);
        for (Object mode : setter.getParameterTypes()[3].getEnumConstants()) {
            if (mode.toString().equals("POP")) {
                call(setter, api, address, topic, group, mode, 0, 10_000L);
            }
        }
    }

    /** Whether a consumer has queues that it pops from. */
    static boolean pops(DefaultMQPushConsumer consumer) {
        try {
            Object rebalance = get(consumer.getDefaultMQPushConsumerImpl(), "getRebalanceImpl");
            return !((java.util.Map<?, ?>) get(rebalance, "getPopProcessQueueTable")).isEmpty();
        } catch (ReflectiveOperationException e) {
            return false;
        }
    }

    private static Object get(Object of, String getter) throws ReflectiveOperationException {
        return method(of.getClass(), getter, 0).invoke(of);
    }

    private static void call(Method method, Object on, Object... args) throws Exception {
        try {
            method.invoke(on, args);
        } catch (InvocationTargetException e) {
            throw e.getCause() instanceof Exception ? (Exception) e.getCause() : e;
        }
    }

    private static Method method(Class<?> type, String name, int parameters) throws NoSuchMethodException {
        for (Method method : type.getMethods()) {
            if (method.getName().equals(name) && method.getParameterCount() == parameters) {
                return method;
            }
        }
        throw new NoSuchMethodException(name);
    }
}
