package folio.clients;

import java.util.Objects;
import java.util.concurrent.Callable;
import org.apache.rocketmq.client.exception.MQBrokerException;

/** Assertions whose message is the reason printed behind FAIL. */
final class Check {
    /** How long anything may take to come true, on however busy a machine; nothing is slower for it. */
    static final int PATIENCE_SECONDS = 120;

    private Check() {}

    static void that(boolean holds, String otherwise) {
        if (!holds) {
            throw new AssertionError(otherwise);
        }
    }

    static void equal(Object expected, Object actual, String what) {
        that(Objects.equals(expected, actual), what + ": expected " + expected + ", got " + actual);
    }

    /** Polls until the condition holds; fails naming what was awaited. */
    static void until(String what, Callable<Boolean> condition) throws Exception {
        until(PATIENCE_SECONDS, what, condition);
    }

    /** The same, with a time of its own. */
    static void until(int seconds, String what, Callable<Boolean> condition) throws Exception {
        long end = System.nanoTime() + seconds * 1_000_000_000L;
        while (!condition.call()) {
            that(System.nanoTime() < end, "not within " + seconds + " s: " + what);
            Thread.sleep(50);
        }
    }

    /** The server must refuse the call with this response code. */
    static void refused(int code, String what, Callable<?> call) throws Exception {
        try {
            Object answer = call.call();
            throw new AssertionError(what + ": expected code " + code + ", got an answer: " + answer);
        } catch (Exception e) {
            Throwable cause = e;
            while (cause != null && !(cause instanceof MQBrokerException)) {
                cause = cause.getCause();
            }
            that(cause != null, what + ": expected code " + code + ", got " + e);
            MQBrokerException answer = (MQBrokerException) cause;
            equal(code, answer.getResponseCode(), what + " (" + answer.getErrorMessage() + ")");
        }
    }

    /** The call must fail, by the client or by the server. */
    static void fails(String what, Callable<?> call) throws Exception {
        Object answer;
        try {
            answer = call.call();
        } catch (Exception expected) {
            return;
        }
        throw new AssertionError(what + " went through: " + answer);
    }
}
