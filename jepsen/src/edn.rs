//! A history as EDN, in the shape of `jepsen.tests.kafka`, so that Jepsen's own checkers can read it.
//!
//! Every line is an operation map. A send is `{:f :send, :value [[:send k v]]}` and comes back as
//! `[[:send k [offset v]]]`; a poll is `[[:poll]]` and comes back as `[[:poll {k [[offset v] ...]}]]`.
//! A key `k` is a queue, a value `v` a message, both numbered from 0. An outcome nobody knows is
//! `:info`, and its process does not act again. Faults are operations of the process `:nemesis`.
//! Commits, lengths and empty polls have no place in that shape and are in the JSON lines only.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};

use crate::history::{History, Op, Outcome, Poll};
use crate::payload::OpKey;
use crate::reading::{Found, QueueKey};

/// Writes the history, one operation a line.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, history: &History) -> Result<()> {
    let shown = || format!("write {}", path.display());
    let mut file = BufWriter::new(File::create(path).with_context(shown)?);
    for line in lines(history) {
        writeln!(file, "{line}").with_context(shown)?;
    }
    file.flush().with_context(shown)
}

/// When, invocations after completions, and the rest of the map.
type Event = (u64, u8, String, String, String);

/// Numbers queues, messages and processes.
struct Numbers<'a> {
    keys: BTreeMap<QueueKey, usize>,
    values: HashMap<OpKey, usize>,
    lanes: BTreeMap<(u32, QueueKey), usize>,
    sessions: BTreeMap<(&'a str, u64), usize>,
}

impl<'a> Numbers<'a> {
    fn of(history: &'a History) -> Self {
        let mut numbers = Self {
            keys: BTreeMap::new(),
            values: HashMap::new(),
            lanes: BTreeMap::new(),
            sessions: BTreeMap::new(),
        };
        for op in &history.ops {
            let queue = queue_of(op);
            let (keys, values, lanes) = (numbers.keys.len(), numbers.values.len(), numbers.lanes.len());
            numbers.keys.entry(queue).or_insert(keys);
            numbers.values.entry(op.key).or_insert(values);
            numbers.lanes.entry((op.key.producer, queue)).or_insert(lanes);
        }
        for poll in &history.polls {
            let (keys, sessions) = (numbers.keys.len(), numbers.sessions.len());
            numbers.keys.entry(poll.queue).or_insert(keys);
            numbers.sessions.entry((&poll.consumer, poll.session)).or_insert(sessions);
        }
        numbers
    }

    fn key(&self, queue: QueueKey) -> usize {
        self.keys.get(&queue).copied().unwrap_or_default()
    }

    /// `nil` for bytes nobody sent.
    fn value(&self, key: Option<OpKey>) -> String {
        key.and_then(|key| self.values.get(&key)).map_or("nil".to_owned(), usize::to_string)
    }
}

fn queue_of(op: &Op) -> QueueKey {
    QueueKey { topic: op.key.topic, queue: op.key.queue }
}

fn lines(history: &History) -> Vec<String> {
    let numbers = Numbers::of(history);
    let mut events: Vec<Event> = Vec::new();
    sends(history, &numbers, &mut events);
    polls(history, &numbers, &mut events);
    for fault in &history.faults {
        let value = format!("{:?}", fault.fault);
        events.push((
            fault.at_us,
            1,
            ":nemesis".to_owned(),
            ":info".to_owned(),
            format!(":f :fault, :value {value}"),
        ));
    }
    events.sort_by_key(|(at_us, order, ..)| (*at_us, *order));
    let line = |(index, (at_us, _, process, kind, rest)): (usize, Event)| {
        let time = at_us.saturating_mul(1000);
        format!("{{:type {kind}, {rest}, :process {process}, :time {time}, :index {index}}}")
    };
    events.into_iter().enumerate().map(line).collect()
}

/// A lane is a process; after an outcome nobody knows another process takes its place.
fn sends(history: &History, numbers: &Numbers<'_>, into: &mut Vec<Event>) {
    let lanes = numbers.lanes.len();
    let mut crashed: HashMap<usize, usize> = HashMap::new();
    for op in &history.ops {
        let lane = numbers.lanes.get(&(op.key.producer, queue_of(op))).copied().unwrap_or_default();
        let lives = crashed.entry(lane).or_default();
        let process = (lane + *lives * lanes).to_string();
        let (key, value) = (numbers.key(queue_of(op)), numbers.value(Some(op.key)));
        let send = format!(":f :send, :value [[:send {key} {value}]]");
        let (kind, done) = match &op.outcome {
            Outcome::Ok { offset, .. } => {
                (":ok", format!(":f :send, :value [[:send {key} [{offset} {value}]]]"))
            }
            Outcome::Fail { error } => (":fail", format!("{send}, :error {error:?}")),
            Outcome::Unknown { error } => {
                *lives += 1;
                (":info", format!("{send}, :error {error:?}"))
            }
        };
        into.push((op.invoked_us, 1, process.clone(), ":invoke".to_owned(), send));
        into.push((op.completed_us, 0, process, kind.to_owned(), done));
    }
}

/// A session is a process, apart from all lanes; it is assigned the queues it polls.
fn polls(history: &History, numbers: &Numbers<'_>, into: &mut Vec<Event>) {
    /// Processes of lanes stay below it.
    const SESSIONS_FROM: usize = 1 << 24;
    let mut queues: BTreeMap<usize, (u64, Vec<usize>)> = BTreeMap::new();
    for poll in &history.polls {
        let session =
            numbers.sessions.get(&(poll.consumer.as_str(), poll.session)).copied().unwrap_or_default();
        let process = SESSIONS_FROM + session;
        let (_, keys) = queues.entry(process).or_insert((poll.invoked_us, Vec::new()));
        let key = numbers.key(poll.queue);
        if !keys.contains(&key) {
            keys.push(key);
        }
        let invoke = ":f :poll, :value [[:poll]]".to_owned();
        into.push((poll.invoked_us, 1, process.to_string(), ":invoke".to_owned(), invoke));
        into.push((poll.completed_us, 0, process.to_string(), ":ok".to_owned(), polled(poll, key, numbers)));
    }
    for (process, (first_us, keys)) in queues {
        let keys: Vec<String> = keys.iter().map(usize::to_string).collect();
        let assign = format!(":f :assign, :value [{}]", keys.join(" "));
        // Before its first poll, even if that was asked in the same microsecond.
        let at_us = first_us.saturating_sub(1);
        into.push((at_us, 1, process.to_string(), ":invoke".to_owned(), assign.clone()));
        into.push((at_us, 2, process.to_string(), ":ok".to_owned(), assign));
    }
}

fn polled(poll: &Poll, key: usize, numbers: &Numbers<'_>) -> String {
    let mut pairs = String::new();
    for Found { offset, key, .. } in &poll.found {
        let space = if pairs.is_empty() { "" } else { " " };
        // Writing into a String does not fail.
        let _ = write!(pairs, "{space}[{offset} {}]", numbers.value(*key));
    }
    format!(":f :poll, :value [[:poll {{{key} [{pairs}]}}]]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Fault;

    fn op(seq: u64, outcome: Outcome) -> Op {
        let key = OpKey { topic: 0, queue: 0, producer: 0, seq };
        Op { key, invoked_us: 10 * seq, completed_us: 10 * seq + 5, resent: 0, outcome }
    }

    fn history() -> History {
        let queue = QueueKey { topic: 0, queue: 0 };
        let key = OpKey { topic: 0, queue: 0, producer: 0, seq: 1 };
        let found = vec![Found { offset: 7, position: 0, size: 1, key: Some(key) }];
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

    #[test]
    fn operations_have_the_shape_of_the_kafka_workload() {
        assert_eq!(
            lines(&history()),
            [
                "{:type :invoke, :f :send, :value [[:send 0 0]], :process 0, :time 10000, :index 0}",
                "{:type :info, :f :fault, :value \"kill -9\", :process :nemesis, :time 12000, :index 1}",
                "{:type :ok, :f :send, :value [[:send 0 [7 0]]], :process 0, :time 15000, :index 2}",
                "{:type :invoke, :f :assign, :value [0], :process 16777216, :time 15000, :index 3}",
                "{:type :ok, :f :assign, :value [0], :process 16777216, :time 15000, :index 4}",
                "{:type :invoke, :f :poll, :value [[:poll]], :process 16777216, :time 16000, :index 5}",
                "{:type :ok, :f :poll, :value [[:poll {0 [[7 0]]}]], :process 16777216, :time 18000, :index 6}",
                "{:type :invoke, :f :send, :value [[:send 0 1]], :process 0, :time 20000, :index 7}",
                "{:type :info, :f :send, :value [[:send 0 1]], :error \"a \\\"timeout\\\"\", :process 0, :time 25000, :index 8}",
                "{:type :invoke, :f :send, :value [[:send 0 2]], :process 1, :time 30000, :index 9}",
                "{:type :fail, :f :send, :value [[:send 0 2]], :error \"busy\", :process 1, :time 35000, :index 10}",
            ]
        );
    }
}
