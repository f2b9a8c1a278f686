package folio.clients;

/** One thing a user does with a client, and the checks that it went as RocketMQ promises. */
@FunctionalInterface
interface Scenario {
    /** Returns when all went well; throws with the reason otherwise. */
    void run(Lab lab) throws Exception;
}
