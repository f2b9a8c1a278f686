package folio.clients;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.common.message.MessageExt;

/** What a consumer got, by payload; a payload may come more than once, none may be missing. */
final class Inbox {
    private final Map<String, AtomicInteger> counts = new ConcurrentHashMap<>();
    private final Map<String, MessageExt> messages = new ConcurrentHashMap<>();
    private final Map<String, Set<String>> places = new ConcurrentHashMap<>();

    static String text(MessageExt message) {
        return new String(message.getBody(), StandardCharsets.UTF_8);
    }

    void add(MessageExt message) {
        String text = text(message);
        messages.putIfAbsent(text, message);
        places.computeIfAbsent(text, p -> ConcurrentHashMap.newKeySet()).add(message.getQueueId() + "/" + message.getQueueOffset());
        add(text);
    }

    void add(String payload) {
        counts.computeIfAbsent(payload, p -> new AtomicInteger()).incrementAndGet();
    }

    void addAll(Collection<MessageExt> all) {
        all.forEach(this::add);
    }

    boolean has(String payload) {
        return counts.containsKey(payload);
    }

    boolean hasPrefix(String prefix) {
        return counts.keySet().stream().anyMatch(payload -> payload.startsWith(prefix));
    }

    int times(String payload) {
        AtomicInteger count = counts.get(payload);
        return count == null ? 0 : count.get();
    }

    /** Distinct payloads. */
    int size() {
        return counts.size();
    }

    /** Deliveries beyond the first of each payload. */
    int repeats() {
        return counts.values().stream().mapToInt(AtomicInteger::get).sum() - counts.size();
    }

    /** Payloads that are stored at more than one place, with their places. */
    List<String> storedTwice() {
        List<String> twice = new ArrayList<>();
        places.forEach((payload, at) -> {
            if (at.size() > 1) {
                twice.add(payload + " at " + at);
            }
        });
        return twice;
    }

    MessageExt message(String payload) {
        return messages.get(payload);
    }

    List<String> missing(Collection<String> expected) {
        List<String> missing = new ArrayList<>();
        for (String payload : expected) {
            if (!has(payload)) {
                missing.add(payload);
            }
        }
        return missing;
    }

    /** Waits until every expected payload came at least once. */
    void await(Collection<String> expected) throws Exception {
        await(expected, Check.PATIENCE_SECONDS);
    }

    /** The same, with a time of its own. */
    void await(Collection<String> expected, int seconds) throws Exception {
        try {
            Check.until(seconds, "", () -> counts.size() >= expected.size() && missing(expected).isEmpty());
        } catch (AssertionError late) {
            List<String> missing = missing(expected);
            Check.that(missing.isEmpty(), missing.size() + " of " + expected.size() + " messages not consumed within "
                + seconds + " s, first " + (missing.isEmpty() ? "" : missing.get(0)));
        }
    }
}
