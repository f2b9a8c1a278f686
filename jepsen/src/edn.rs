//! A history as EDN, in the shape of `jepsen.tests.kafka`, so that Jepsen's own checkers can read it.
//!
//! Every line is an operation map. A send is `{:f :send, :value [[:send k v]]}` and comes back as
//! `[[:send k [offset v]]]`; a poll is `[[:poll]]` and comes back as `[[:poll {k [[offset v] ...]}]]`.
//! A key `k` is a queue, a value `v` a message, both numbered from 0. An outcome nobody knows is
//! `:info`, and its process does not act again. Faults are operations of the process `:nemesis`.
//! What the checkers read on every replica at the end is a poll of each queue by a process of its own,
//! as the final polls there are. Commits, lengths and empty polls have no place in that shape and are
//! in the JSON lines only.
//!
//! Times are nanoseconds. What happened within one microsecond is put in order: completions come before
//! invocations, and a process does one thing after the other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};

use crate::history::{History, Op, Outcome, Poll};
use crate::payload::OpKey;
use crate::reading::{Found, QueueKey, Reading};

/// Processes of lanes stay below it; sessions begin here.
const SESSIONS_FROM: usize = 1 << 24;
/// Sessions stay below it; readers of the end begin here.
const READERS_FROM: usize = 1 << 25;

/// Writes the history and what was read at the end, one operation a line.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, history: &History, replicas: &[Reading]) -> Result<()> {
    let shown = || format!("write {}", path.display());
    let mut file = BufWriter::new(File::create(path).with_context(shown)?);
    for line in lines(history, replicas) {
        writeln!(file, "{line}").with_context(shown)?;
    }
    file.flush().with_context(shown)
}

/// A line without its index.
struct Event {
    at_ns: u64,
    process: String,
    kind: &'static str,
    rest: String,
}

/// Lines in the making.
#[derive(Default)]
struct Events {
    all: Vec<Event>,
    /// When each process did its last thing.
    last_ns: HashMap<String, u64>,
}

impl Events {
    /// Later than the process's last event, which must have been added before.
    fn add(&mut self, at_ns: u64, process: &str, kind: &'static str, rest: String) {
        let last_ns = self.last_ns.entry(process.to_owned()).or_default();
        let at_ns = at_ns.max(*last_ns + 1);
        *last_ns = at_ns;
        self.all.push(Event { at_ns, process: process.to_owned(), kind, rest });
    }

    fn invoke(&mut self, at_us: u64, process: &str, rest: String) {
        self.add(at_us.saturating_mul(1000).saturating_add(500), process, ":invoke", rest);
    }

    fn complete(&mut self, at_us: u64, process: &str, kind: &'static str, rest: String) {
        self.add(at_us.saturating_mul(1000), process, kind, rest);
    }

    fn end_us(&self) -> u64 {
        self.last_ns.values().max().map_or(0, |last_ns| last_ns / 1000 + 1)
    }
}

/// Numbers queues, messages and processes.
struct Numbers<'a> {
    keys: BTreeMap<QueueKey, usize>,
    values: HashMap<OpKey, usize>,
    lanes: BTreeMap<(u32, QueueKey), usize>,
    sessions: BTreeMap<(&'a str, u64), usize>,
}

impl<'a> Numbers<'a> {
    fn of(history: &'a History, replicas: &[Reading]) -> Self {
        let mut numbers = Self {
            keys: BTreeMap::new(),
            values: HashMap::new(),
            lanes: BTreeMap::new(),
            sessions: BTreeMap::new(),
        };
        for op in &history.ops {
            let queue = queue_of(op);
            let (values, lanes) = (numbers.values.len(), numbers.lanes.len());
            numbers.add_key(queue);
            numbers.values.entry(op.key).or_insert(values);
            numbers.lanes.entry((op.key.producer, queue)).or_insert(lanes);
        }
        for poll in &history.polls {
            let sessions = numbers.sessions.len();
            numbers.add_key(poll.queue);
            numbers.sessions.entry((&poll.consumer, poll.session)).or_insert(sessions);
        }
        replicas.iter().flat_map(|reading| reading.queues.keys()).for_each(|queue| numbers.add_key(*queue));
        numbers
    }

    fn add_key(&mut self, queue: QueueKey) {
        let next = self.keys.len();
        self.keys.entry(queue).or_insert(next);
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

/// A string as EDN has it; Rust's own escapes are not all among EDN's.
fn text(words: &str) -> String {
    let mut text = String::from("\"");
    for letter in words.chars() {
        match letter {
            '"' | '\\' => text.extend(['\\', letter]),
            '\n' => text.push_str("\\n"),
            letter if letter.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(letter))),
            letter => text.push(letter),
        }
    }
    text.push('"');
    text
}

fn lines(history: &History, replicas: &[Reading]) -> Vec<String> {
    let numbers = Numbers::of(history, replicas);
    let mut events = Events::default();
    for fault in &history.faults {
        let rest = format!(":f :fault, :value {}", text(&fault.fault));
        events.complete(fault.at_us, ":nemesis", ":info", rest);
    }
    sends(history, &numbers, &mut events);
    polls(history, &numbers, &mut events);
    last_polls(replicas, &numbers, &mut events);
    events.all.sort_by_key(|event| event.at_ns);
    let line = |(index, Event { at_ns, process, kind, rest }): (usize, Event)| {
        format!("{{:type {kind}, {rest}, :process {process}, :time {at_ns}, :index {index}}}")
    };
    events.all.into_iter().enumerate().map(line).collect()
}

/// A lane is a process; after an outcome nobody knows another process takes its place.
fn sends(history: &History, numbers: &Numbers<'_>, events: &mut Events) {
    let lanes = numbers.lanes.len();
    let mut crashed: HashMap<usize, usize> = HashMap::new();
    let mut ops: Vec<&Op> = history.ops.iter().collect();
    ops.sort_by_key(|op| op.invoked_us);
    for op in ops {
        let lane = numbers.lanes.get(&(op.key.producer, queue_of(op))).copied().unwrap_or_default();
        let lives = crashed.entry(lane).or_default();
        let process = (lane + *lives * lanes).to_string();
        let (key, value) = (numbers.key(queue_of(op)), numbers.value(Some(op.key)));
        let send = format!(":f :send, :value [[:send {key} {value}]]");
        let (kind, done) = match &op.outcome {
            Outcome::Ok { offset, .. } => {
                (":ok", format!(":f :send, :value [[:send {key} [{offset} {value}]]]"))
            }
            Outcome::Fail { error } => (":fail", format!("{send}, :error {}", text(error))),
            Outcome::Unknown { error } => {
                *lives += 1;
                (":info", format!("{send}, :error {}", text(error)))
            }
        };
        events.invoke(op.invoked_us, &process, send);
        events.complete(op.completed_us, &process, kind, done);
    }
}

/// A session is a process, apart from all lanes; it is assigned the queues it polls.
fn polls(history: &History, numbers: &Numbers<'_>, events: &mut Events) {
    let mut sessions: BTreeMap<usize, Vec<&Poll>> = BTreeMap::new();
    for poll in &history.polls {
        let session = numbers.sessions.get(&(poll.consumer.as_str(), poll.session)).copied();
        sessions.entry(SESSIONS_FROM + session.unwrap_or_default()).or_default().push(poll);
    }
    for (process, mut polls) in sessions {
        polls.sort_by_key(|poll| poll.invoked_us);
        let process = process.to_string();
        let keys: BTreeSet<usize> = polls.iter().map(|poll| numbers.key(poll.queue)).collect();
        assign(polls.first().map_or(0, |poll| poll.invoked_us), &process, &keys, events);
        for poll in polls {
            let key = numbers.key(poll.queue);
            events.invoke(poll.invoked_us, &process, ":f :poll, :value [[:poll]]".to_owned());
            events.complete(poll.completed_us, &process, ":ok", polled(&poll.found, key, numbers));
        }
    }
}

/// Every queue as every reader found it at the end.
fn last_polls(replicas: &[Reading], numbers: &Numbers<'_>, events: &mut Events) {
    let end_us = events.end_us();
    for (number, reading) in replicas.iter().enumerate() {
        let process = (READERS_FROM + number).to_string();
        let keys = reading.queues.keys().map(|queue| numbers.key(*queue)).collect();
        assign(end_us, &process, &keys, events);
        for (queue, found) in &reading.queues {
            events.invoke(end_us, &process, ":f :poll, :value [[:poll]]".to_owned());
            events.complete(end_us, &process, ":ok", polled(found, numbers.key(*queue), numbers));
        }
    }
}

fn assign(at_us: u64, process: &str, keys: &BTreeSet<usize>, events: &mut Events) {
    let keys: Vec<String> = keys.iter().map(usize::to_string).collect();
    let assign = format!(":f :assign, :value [{}]", keys.join(" "));
    events.invoke(at_us, process, assign.clone());
    events.complete(at_us, process, ":ok", assign);
}

fn polled(found: &[Found], key: usize, numbers: &Numbers<'_>) -> String {
    let mut pairs = String::new();
    for Found { offset, key, .. } in found {
        let space = if pairs.is_empty() { "" } else { " " };
        // Writing into a String does not fail.
        let _ = write!(pairs, "{space}[{offset} {}]", numbers.value(*key));
    }
    format!(":f :poll, :value [[:poll {{{key} [{pairs}]}}]]")
}

#[cfg(test)]
mod tests;
