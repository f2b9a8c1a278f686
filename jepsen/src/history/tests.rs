//! What is written reads back, and gaps are measured from a fault on.

use super::*;

#[test]
fn a_line_of_the_file_reads_back_as_the_same_op() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.jsonl");
    let recorder = Recorder::create(&path).unwrap();
    let key = OpKey { topic: 0, queue: 1, producer: 2, seq: 3 };
    let outcome = Outcome::Ok { offset: 9, position: Some(64) };
    let op = Op { key, invoked_us: 1, completed_us: 2, resent: 0, outcome };
    recorder.op(op.clone());
    recorder.fault("kill node 1", true);
    let history = recorder.finish().unwrap();
    assert_eq!(history.ops, std::slice::from_ref(&op));
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    assert_eq!(serde_json::from_str::<Op>(lines.next().unwrap()).unwrap(), op);
    let fault: Fault = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(fault.fault, "kill node 1");
}

#[test]
fn only_a_send_begun_after_the_kill_ends_the_gap() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::create(&dir.path().join("h")).unwrap();
    let send = |seq, invoked_us, completed_us| Op {
        key: OpKey { topic: 0, queue: 0, producer: 0, seq },
        invoked_us,
        completed_us,
        resent: 0,
        outcome: Outcome::Ok { offset: seq, position: None },
    };
    recorder.op(send(0, 90, 110));
    assert_eq!(recorder.acked_after(100), None, "its answer was on the way before the kill");
    recorder.op(send(1, 120, 300));
    assert_eq!(recorder.acked_after(100), Some(300));
}
