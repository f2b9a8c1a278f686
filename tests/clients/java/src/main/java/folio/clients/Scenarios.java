package folio.clients;

import java.util.LinkedHashMap;
import java.util.Map;

/** All scenarios by the name under which they are reported; slow ones first, so that they overlap the rest. */
final class Scenarios {
    /** These need QUERY_MESSAGE, which FolioMQ does not serve yet: they run when --only names them. */
    static final java.util.Set<String> ONLY_WHEN_NAMED = java.util.Set.of("query-by-unique-id", "query-by-key");

    private Scenarios() {}

    static Map<String, Scenario> all() {
        Map<String, Scenario> all = new LinkedHashMap<>();
        all.put("retry-backoff", Retries::backOff);
        if (Versions.hasTimes()) {
            all.put("delay-recall", Delays::recall);
            all.put("delay-time", Delays::times);
        }
        all.put("delay-level", Delays::levels);
        if (Versions.hasPop()) {
            all.put("push-pop", Pops::push);
        }
        all.put("retry-dlq", Retries::deadLetter);
        all.put("retry-dlq-orderly", Retries::orderlyDeadLetter);
        all.put("transaction", Transactions::ends);
        all.put("takeover-killed", Groups::killed);
        all.put("takeover-shutdown", Groups::shutDown);
        all.put("push-broadcast", Groups::broadcast);
        all.put("retry-once", Retries::once);
        all.put("offset-restart", Groups::restart);
        all.put("batch-split", Batches::split);
        all.put("batch-4mb", Batches::large);
        all.put("send-sync", Sends::sync);
        all.put("send-async", Sends::async);
        all.put("send-oneway", Sends::oneway);
        all.put("send-orderly", Sends::orderly);
        all.put("again-sync", Repeats::sync);
        all.put("again-async", Repeats::async);
        all.put("again-oneway", Repeats::oneway);
        all.put("again-queues", Repeats::queues);
        all.put("again-batch", Repeats::batch);
        all.put("again-producers", Repeats::producers);
        all.put("push-concurrent", Groups::concurrent);
        all.put("push-orderly", Groups::orderly);
        all.put("tag-filter", Groups::tags);
        all.put("pull-queue", Pulls::byQueue);
        all.put("pull-offsets", Pulls::offsets);
        all.put("lite-subscribe", Pulls::liteSubscribe);
        all.put("lite-assign", Pulls::liteAssign);
        all.put("create-topic", Admin::createTopic);
        all.put("view-message", Admin::viewMessage);
        all.put("query-by-unique-id", Admin::queryByUniqueId);
        all.put("query-by-key", Admin::queryByKey);
        all.put("error-too-large", Refusals::tooLarge);
        all.put("error-topic-name", Refusals::topicName);
        all.put("error-pull", Refusals::pull);
        all.put("error-unknown-offset", Refusals::unknownOffset);
        all.put(Failover.NAME, new Failover(Failover.NAME, false));
        all.put(Failover.RESEND, new Failover(Failover.RESEND, true));
        all.put(FailoverDelays.NAME, new FailoverDelays());
        all.put(Transactions.FAILOVER, Transactions::failover);
        return all;
    }
}
