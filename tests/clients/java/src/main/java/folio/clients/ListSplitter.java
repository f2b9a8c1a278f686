package folio.clients;

import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.NoSuchElementException;
import org.apache.rocketmq.common.message.Message;

/** Cuts a list of messages into batches that stay below a size, as RocketMQ's documentation advises. */
final class ListSplitter implements Iterator<List<Message>> {
    /** What the encoding adds to each message, with room to spare. */
    private static final int OVERHEAD = 200;

    private final int sizeMax;
    private final List<Message> messages;
    private int next;

    ListSplitter(List<Message> messages, int sizeMax) {
        this.messages = messages;
        this.sizeMax = sizeMax;
    }

    @Override
    public boolean hasNext() {
        return next < messages.size();
    }

    @Override
    public List<Message> next() {
        if (!hasNext()) {
            throw new NoSuchElementException();
        }
        int start = next;
        int size = 0;
        while (next < messages.size() && (next == start || size + size(messages.get(next)) <= sizeMax)) {
            size += size(messages.get(next));
            next++;
        }
        return messages.subList(start, next);
    }

    static int size(Message message) {
        int size = message.getTopic().length() + message.getBody().length + OVERHEAD;
        for (Map.Entry<String, String> property : message.getProperties().entrySet()) {
            size += property.getKey().length() + property.getValue().length();
        }
        return size;
    }
}
