//! `folio bench` against a node: what it says is what the node has.

use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::node::{Node, PATIENCE, folio};

fn run(node: &Node, words: &str) -> Output {
    let namesrv = format!("127.0.0.1:{}", node.port);
    folio().args(words.split(' ')).args(["--json", "-n", &namesrv]).output().unwrap()
}

/// What a bench printed, after it succeeded.
fn bench(node: &Node, words: &str) -> Value {
    let output = run(node, words);
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{words}: {out}{error}\n{}", node.log());
    serde_json::from_str(&out).unwrap()
}

/// How many messages there are to pull. A pull that finds none says so, too, and fails.
fn pulled(node: &Node, topic: &str) -> u64 {
    let output = run(node, &format!("bench pull --topic {topic} --seconds 30"));
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["acked"].as_u64().unwrap()
}

/// A node that takes all kinds of messages: the feature level is raised a moment after the start.
fn start() -> Node {
    let node = Node::start();
    let deadline = Instant::now() + PATIENCE;
    while node.status().is_none_or(|status| status.feature_level < status.feature_level_max) {
        assert!(Instant::now() < deadline, "the feature level stays\n{}", node.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    node
}

#[test]
fn a_bench_sends_each_kind_and_says_which() {
    let node = start();
    let options = "--seconds 1 --warmup 0 --outstanding 16 --size 100";
    for kind in ["plain", "transaction"] {
        let sent = bench(&node, &format!("bench send --topic {kind} --kind {kind} {options}"));
        assert_eq!((&sent["kind"], &sent["errors"]), (&json!(kind), &json!({})));
        // Messages acknowledged after the last moment are not counted; they are at most those in flight.
        let (acked, pulled) = (sent["acked"].as_u64().unwrap(), pulled(&node, kind));
        assert!(
            acked > 0 && (acked..=acked + 16).contains(&pulled),
            "{kind}: {pulled} pulled, {acked} acked"
        );
    }
    let open: Value = serde_json::from_slice(&run(&node, "transaction list").stdout).unwrap();
    assert_eq!(open["broker-a"], json!([]), "a transaction is left open");
    let sent = bench(&node, &format!("bench send --topic later --kind delayed --delay-ms 3600000 {options}"));
    assert_eq!((&sent["kind"], &sent["errors"]), (&json!("delayed"), &json!({})));
    assert!(sent["acked"].as_u64().unwrap() > 0);
    assert_eq!(pulled(&node, "later"), 0, "an hour has not passed");
}

#[test]
fn a_bench_of_lateness_sees_each_delayed_message_once_and_none_early() {
    let node = start();
    for (options, rate) in
        [("--rate 200 --seconds 1", json!(200.0)), ("--due-at-once --count 500 --size 10", Value::Null)]
    {
        // Sends have to be over before all messages are due, on however busy a machine.
        let words = format!("bench lateness --topic orders --delay-ms 3000 --timeout 60 {options}");
        let told = bench(&node, &words);
        let count = if rate.is_null() { 500 } else { 200 };
        assert_eq!((&told["sent"], &told["seen"]), (&json!(count), &json!(count)), "{told}");
        assert_eq!(
            (&told["missing"], &told["early"], &told["rate"]),
            (&json!(0), &json!(0), &rate),
            "{told}"
        );
        assert!(told["late_max_ms"].as_f64().unwrap() >= told["late_p50_ms"].as_f64().unwrap(), "{told}");
        assert_eq!(told["delivered_per_s"].is_null(), !rate.is_null(), "{told}");
    }
    let words = "bench lateness --topic orders --due-at-once --count 1000000 --delay-ms 200";
    let refused = run(&node, words);
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && error.contains("raise --delay-ms 200"), "{error}");
}

#[test]
fn a_bench_pops_and_acknowledges_what_was_sent() {
    let node = start();
    let options = "--seconds 1 --warmup 0 --outstanding 16 --size 100 --rate 500";
    bench(&node, &format!("bench send --topic orders {options}"));
    let there = pulled(&node, "orders");
    for acks in ["each", "batch"] {
        let words =
            format!("bench pop --topic orders --group {acks} --acks {acks} --seconds 60 --outstanding 4");
        let popped = bench(&node, &words);
        let said = ["load", "acks", "errors", "acked"].map(|key| &popped[key]);
        assert_eq!(said, [&json!("pop"), &json!(acks), &json!({}), &json!(there)], "{popped}");
        assert!(popped["p50_ms"].as_f64().unwrap() > 0.0, "{popped}");
        let again = run(&node, &format!("bench pop --topic orders --group {acks} --seconds 60"));
        let error = String::from_utf8_lossy(&again.stderr);
        assert!(
            !again.status.success() && error.contains("no message was popped and acknowledged"),
            "{error}"
        );
    }
}
