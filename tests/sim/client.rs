//! The clients of a run: they send messages and commands to whoever says it leads, and sometimes to whoever does not.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use folio_engine::disk::sim::SeededChoice;
use folio_protocol::message::NewMessage;
use folio_protocol::properties::{self, UNIQUE_KEY};
use folio_raft::command::{Command, OffsetCommit, Topic};
use folio_raft::proposal::{Proposal, ProposeError, Receipt};
use folio_raft::status::{Role, Status};
use parking_lot::Mutex;

use crate::node::Node;

pub(crate) const TOPICS: [&str; 3] = ["a", "orders", "a-longer-name"];
pub(crate) const QUEUES: u32 = 3;

/// Proposals that may be sent again.
const REMEMBERED: usize = 20;

/// What was sent in one millisecond.
#[derive(Default)]
pub(crate) struct Sent {
    pub(crate) messages: Vec<u64>,
    /// They were sent before.
    pub(crate) again: bool,
}

/// A proposal's messages and its answer.
pub(crate) type Answer = (Vec<u64>, Result<Receipt, ProposeError>);

/// All clients together.
pub(crate) struct Clients {
    random: SeededChoice,
    next: u64,
    answers: Arc<Mutex<Vec<Answer>>>,
    /// What a client may send again, as RocketMQ's do when they do not know what became of it.
    lately: VecDeque<(Vec<u64>, Vec<NewMessage>)>,
    /// Whether they do: where nothing old is dropped, all of it is recognised.
    repeats: bool,
    /// Chance of a proposal in a millisecond, percent.
    pub(crate) rate: u64,
}

impl Clients {
    pub(crate) fn new(seed: u64, repeats: bool) -> Clients {
        let (answers, lately) = Default::default();
        Clients { random: SeededChoice::new(seed), next: 1, answers, lately, repeats, rate: 30 }
    }

    /// What was answered since the last call.
    pub(crate) fn answers(&self) -> Vec<Answer> {
        std::mem::take(&mut *self.answers.lock())
    }

    /// Sends something, or not. Returns the messages that were sent.
    pub(crate) fn step(&mut self, nodes: &BTreeMap<u64, Node>, seen: &BTreeMap<u64, Status>) -> Sent {
        if self.random.below(100) >= self.rate {
            return Sent::default();
        }
        let anyone = self.random.below(10) == 0;
        let able = seen.values().filter(|status| anyone || status.role == Role::Leader);
        let able: Vec<u64> = able.map(|status| status.node_id).collect();
        if able.is_empty() {
            return Sent::default();
        }
        let node = &nodes[&able[self.random.below(able.len() as u64) as usize]];
        if self.random.below(40) == 0 {
            self.command(node);
            return Sent::default();
        }
        self.propose(node)
    }

    fn propose(&mut self, node: &Node) -> Sent {
        let Some(group) = node.group() else { return Sent::default() };
        let again = self.repeats && self.random.below(10) == 0 && !self.lately.is_empty();
        let (numbers, messages, once) = if again { self.old() } else { self.new_messages() };
        let (answers, to) = (self.answers.clone(), numbers.clone());
        let reply = Box::new(move |answer| answers.lock().push((to, answer)));
        if let Err((_, error)) = group.propose(Proposal { messages, once, reply }) {
            self.answers.lock().push((numbers.clone(), Err(error)));
        }
        Sent { messages: numbers, again }
    }

    fn old(&mut self) -> (Vec<u64>, Vec<NewMessage>, bool) {
        let (numbers, messages) = self.lately[self.random.below(self.lately.len() as u64) as usize].clone();
        (numbers, messages, true)
    }

    fn new_messages(&mut self) -> (Vec<u64>, Vec<NewMessage>, bool) {
        let count = 1 + self.random.below(3);
        let numbers: Vec<u64> = (self.next..self.next + count).collect();
        self.next += count;
        let once = self.random.below(2) == 0;
        let mut messages: Vec<NewMessage> =
            numbers.iter().map(|number| self.message(*number, once)).collect();
        if once {
            // A batch of RocketMQ goes to one queue, and is recognised there.
            let (topic, queue_id) = (messages[0].topic.clone(), messages[0].queue_id);
            for message in &mut messages {
                (message.topic, message.queue_id) = (topic.clone(), queue_id);
            }
            self.lately.push_back((numbers.clone(), messages.clone()));
            while self.lately.len() > REMEMBERED {
                self.lately.pop_front();
            }
        }
        (numbers, messages, once)
    }

    fn command(&mut self, node: &Node) {
        let Some(group) = node.group() else { return };
        let topic = TOPICS[self.random.below(3) as usize];
        let command = match self.random.below(5) {
            0 => Command::CreateTopic(Topic::new(topic, QUEUES)),
            1 => Command::DeleteTopic { name: topic.into() },
            2 => {
                let (read_queues, write_queues) = (self.queues(), self.queues());
                Command::PutTopic(Topic { read_queues, write_queues, ..Topic::new(topic, QUEUES) })
            }
            3 => Command::DeleteGroup { name: "g".into(), clean_offsets: self.random.below(2) == 0 },
            _ => Command::CommitOffsets(vec![OffsetCommit {
                group: "g".into(),
                topic: topic.into(),
                queue: self.random.below(3) as u32,
                offset: self.random.below(1000),
            }]),
        };
        node.spawn(async move { drop(group.execute(command).await) });
    }

    fn queues(&mut self) -> u32 {
        1 + self.random.below(u64::from(QUEUES)) as u32
    }

    fn message(&mut self, number: u64, once: bool) -> NewMessage {
        let host: SocketAddr = ([10, 0, 0, 99], 1).into();
        let padding = match self.random.below(20) {
            0 => self.random.below(6000),
            _ => self.random.below(300),
        };
        let mut body = number.to_le_bytes().to_vec();
        body.resize(body.len() + padding as usize, number as u8);
        let mut keys = BytesMut::new();
        if once {
            properties::append(&mut keys, UNIQUE_KEY, &number.to_string());
        }
        NewMessage {
            topic: TOPICS[self.random.below(3) as usize].into(),
            queue_id: self.random.below(u64::from(QUEUES)) as u32,
            flag: 0,
            sys_flag: 0,
            born_timestamp: 1,
            born_host: host,
            store_timestamp: 0,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: body.into(),
            properties: keys.freeze(),
        }
    }
}
