use super::*;
use crate::history::Fault;

fn op(seq: u64, outcome: Outcome) -> Op {
    let key = OpKey { topic: 0, queue: 0, producer: 0, seq };
    Op { key, invoked_us: 10 * seq, completed_us: 10 * seq + 5, resent: 0, outcome }
}

fn history() -> History {
    let queue = QueueKey { topic: 0, queue: 0 };
    let key = OpKey { topic: 0, queue: 0, producer: 0, seq: 1 };
    let found = vec![Found { offset: 7, position: 0, size: 1, key: Some(key), marks: None }];
    let (consumer, broker) = ("reader".to_owned(), "a".to_owned());
    History {
        ops: vec![
            op(1, Outcome::Ok { offset: 7, position: None }),
            op(2, Outcome::Unknown { error: "a \"timeout\"".to_owned() }),
            op(3, Outcome::Fail { error: "busy".to_owned() }),
        ],
        polls: vec![Poll {
            consumer,
            session: 3,
            broker,
            queue,
            from: 7,
            next: 8,
            invoked_us: 16,
            completed_us: 18,
            found,
        }],
        faults: vec![Fault { at_us: 12, fault: "kill -9".to_owned(), stops_writes: true }],
        ..History::default()
    }
}

fn reading() -> Reading {
    let queue = QueueKey { topic: 0, queue: 0 };
    let found = history().polls[0].found.clone();
    Reading { reader: "node 1".to_owned(), queues: [(queue, found)].into(), ..Reading::default() }
}

#[test]
fn operations_have_the_shape_of_the_kafka_workload() {
    assert_eq!(
        lines(&history(), &[reading()]),
        [
            "{:type :invoke, :f :send, :value [[:send 0 0]], :process 0, :time 10500, :index 0}",
            "{:type :info, :f :fault, :value \"kill -9\", :process :nemesis, :time 12000, :index 1}",
            "{:type :ok, :f :send, :value [[:send 0 [7 0]]], :process 0, :time 15000, :index 2}",
            "{:type :invoke, :f :assign, :value [0], :process 16777216, :time 16500, :index 3}",
            "{:type :ok, :f :assign, :value [0], :process 16777216, :time 16501, :index 4}",
            "{:type :invoke, :f :poll, :value [[:poll]], :process 16777216, :time 16502, :index 5}",
            "{:type :ok, :f :poll, :value [[:poll {0 [[7 0]]}]], :process 16777216, :time 18000, :index 6}",
            "{:type :invoke, :f :send, :value [[:send 0 1]], :process 0, :time 20500, :index 7}",
            "{:type :info, :f :send, :value [[:send 0 1]], :error \"a \\\"timeout\\\"\", :process 0, :time 25000, :index 8}",
            "{:type :invoke, :f :send, :value [[:send 0 2]], :process 1, :time 30500, :index 9}",
            "{:type :fail, :f :send, :value [[:send 0 2]], :error \"busy\", :process 1, :time 35000, :index 10}",
            "{:type :invoke, :f :assign, :value [0], :process 33554432, :time 36500, :index 11}",
            "{:type :ok, :f :assign, :value [0], :process 33554432, :time 36501, :index 12}",
            "{:type :invoke, :f :poll, :value [[:poll]], :process 33554432, :time 36502, :index 13}",
            "{:type :ok, :f :poll, :value [[:poll {0 [[7 0]]}]], :process 33554432, :time 36503, :index 14}",
        ]
    );
}

#[test]
fn what_takes_less_than_a_microsecond_still_begins_before_it_ends() {
    let key = OpKey { topic: 0, queue: 0, producer: 0, seq: 0 };
    let at_once = |seq| Op {
        key: OpKey { seq, ..key },
        invoked_us: 9,
        completed_us: 9,
        resent: 0,
        outcome: Outcome::Ok { offset: seq, position: None },
    };
    let history = History { ops: vec![at_once(0), at_once(1)], ..History::default() };
    let lines = lines(&history, &[]);
    let kinds: Vec<&str> = lines.iter().filter_map(|line| line.get(8..11)).collect();
    assert_eq!(kinds, ["inv", "ok,", "inv", "ok,"], "{lines:?}");
}

#[test]
fn strings_have_only_escapes_that_edn_has() {
    assert_eq!(text("a \"b\" \\ \n\u{1b}[0m é"), "\"a \\\"b\\\" \\\\ \\n\\u001b[0m é\"");
}
