package folio.clients;

import java.io.PrintStream;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * Runs scenarios, several at a time, and reports each on standard output as a line the script reads:
 * "@@ PLAN name name ...", "@@ PASS name seconds", "@@ FAIL name seconds reason", "@@ NOTE name text",
 * "@@ READY" (in flight, kill now). Everything else on standard output is log.
 *
 * Arguments: --namesrv ADDRS --run ID [--only a,b] [--limit SECONDS] [--jobs N]
 */
public final class Main {
    private static final PrintStream OUT = System.out;

    private Main() {}

    static synchronized void report(String line) {
        OUT.println("@@ " + line);
        OUT.flush();
    }

    public static void main(String[] args) throws Exception {
        Map<String, String> options = new HashMap<>();
        for (int i = 0; i + 1 < args.length; i += 2) {
            options.put(args[i], args[i + 1]);
        }
        String namesrv = options.get("--namesrv");
        String run = options.get("--run");
        int limit = Integer.parseInt(options.getOrDefault("--limit", "300"));
        int jobs = Integer.parseInt(options.getOrDefault("--jobs", "4"));
        Map<String, Scenario> all = Scenarios.all();
        List<String> plan = new ArrayList<>(all.keySet());
        plan.remove(Failover.NAME);
        plan.remove(Failover.RESEND);
        plan.remove(FailoverDelays.NAME);
        plan.remove(Transactions.FAILOVER);
        plan.removeAll(Scenarios.ONLY_WHEN_NAMED);
        if (options.containsKey("--only")) {
            plan = new ArrayList<>(Arrays.asList(options.get("--only").split(",")));
            plan.retainAll(all.keySet());
        }
        report("PLAN " + String.join(" ", plan));
        ExecutorService pool = Executors.newFixedThreadPool(jobs);
        for (String name : plan) {
            pool.execute(() -> one(name, all.get(name), new Lab(namesrv, run), limit));
        }
        pool.shutdown();
        pool.awaitTermination(1, TimeUnit.HOURS);
        // Clients that hang in a failed scenario leave threads behind that are no daemons.
        System.exit(0);
    }

    private static void one(String name, Scenario scenario, Lab lab, int limit) {
        long start = System.nanoTime();
        ExecutorService thread = Executors.newSingleThreadExecutor();
        String failure = null;
        Future<?> running = thread.submit(() -> {
            try {
                scenario.run(lab);
            } catch (Error e) {
                throw new ExecutionException(e);
            }
            return null;
        });
        try {
            running.get(limit, TimeUnit.SECONDS);
        } catch (TimeoutException e) {
            running.cancel(true);
            failure = "time limit of " + limit + " s";
        } catch (ExecutionException | InterruptedException e) {
            failure = reason(name, e);
        }
        double seconds = (System.nanoTime() - start) / 1e9;
        String took = String.format("%.1f", seconds);
        report(failure == null ? "PASS " + name + " " + took : "FAIL " + name + " " + took + " " + failure);
        thread.shutdown();
        lab.close();
    }

    /** The innermost failure in one line; the stack goes to the log. */
    private static String reason(String name, Throwable e) {
        Throwable cause = e;
        while (cause instanceof ExecutionException && cause.getCause() != null) {
            cause = cause.getCause();
        }
        synchronized (Main.class) {
            System.err.println("scenario " + name + " failed:");
            cause.printStackTrace();
        }
        String text = cause instanceof AssertionError ? cause.getMessage() : cause.toString();
        String line = String.valueOf(text).replaceAll("\\s+", " ");
        return line.length() > 300 ? line.substring(0, 300) + "..." : line;
    }
}
