//! The clients of a run: they send messages and commands to whoever says it leads, and sometimes to whoever does not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use folio_engine::disk::sim::SeededChoice;
use folio_protocol::message::NewMessage;
use folio_raft::command::{Command, OffsetCommit, Topic};
use folio_raft::proposal::{Proposal, ProposeError, Receipt};
use folio_raft::status::{Role, Status};
use parking_lot::Mutex;

use crate::node::Node;

pub(crate) const TOPICS: [&str; 3] = ["a", "orders", "a-longer-name"];
pub(crate) const QUEUES: u32 = 3;

/// A proposal's messages and its answer.
pub(crate) type Answer = (Vec<u64>, Result<Receipt, ProposeError>);

/// All clients together.
pub(crate) struct Clients {
    random: SeededChoice,
    next: u64,
    answers: Arc<Mutex<Vec<Answer>>>,
    /// Chance of a proposal in a millisecond, percent.
    pub(crate) rate: u64,
}

impl Clients {
    pub(crate) fn new(seed: u64) -> Clients {
        Clients { random: SeededChoice::new(seed), next: 1, answers: Arc::default(), rate: 30 }
    }

    /// What was answered since the last call.
    pub(crate) fn answers(&self) -> Vec<Answer> {
        std::mem::take(&mut *self.answers.lock())
    }

    /// Sends something, or not. Returns the messages that were sent.
    pub(crate) fn step(&mut self, nodes: &BTreeMap<u64, Node>, seen: &BTreeMap<u64, Status>) -> Vec<u64> {
        if self.random.below(100) >= self.rate {
            return Vec::new();
        }
        let anyone = self.random.below(10) == 0;
        let able = seen.values().filter(|status| anyone || status.role == Role::Leader);
        let able: Vec<u64> = able.map(|status| status.node_id).collect();
        if able.is_empty() {
            return Vec::new();
        }
        let node = &nodes[&able[self.random.below(able.len() as u64) as usize]];
        if self.random.below(40) == 0 {
            self.command(node);
            return Vec::new();
        }
        self.propose(node)
    }

    pub(crate) fn propose(&mut self, node: &Node) -> Vec<u64> {
        let Some(group) = node.group() else { return Vec::new() };
        let count = 1 + self.random.below(3);
        let messages: Vec<u64> = (self.next..self.next + count).collect();
        self.next += count;
        let (answers, once) = (self.answers.clone(), self.random.below(2) == 0);
        let (numbers, reply_to) = (messages.clone(), messages.clone());
        let reply = Box::new(move |answer| answers.lock().push((numbers, answer)));
        let messages = messages.into_iter().map(|number| self.message(number)).collect();
        if let Err((_, error)) = group.propose(Proposal { messages, once, reply }) {
            self.answers.lock().push((reply_to.clone(), Err(error)));
        }
        reply_to
    }

    fn command(&mut self, node: &Node) {
        let Some(group) = node.group() else { return };
        let topic = TOPICS[self.random.below(3) as usize];
        let command = match self.random.below(3) {
            0 => Command::CreateTopic(Topic::new(topic, QUEUES)),
            1 => Command::DeleteTopic { name: topic.into() },
            _ => Command::CommitOffsets(vec![OffsetCommit {
                group: "g".into(),
                topic: topic.into(),
                queue: self.random.below(3) as u32,
                offset: self.random.below(1000),
            }]),
        };
        node.spawn(async move { drop(group.execute(command).await) });
    }

    fn message(&mut self, number: u64) -> NewMessage {
        let host: SocketAddr = ([10, 0, 0, 99], 1).into();
        let padding = match self.random.below(20) {
            0 => self.random.below(6000),
            _ => self.random.below(300),
        };
        let mut body = number.to_le_bytes().to_vec();
        body.resize(body.len() + padding as usize, number as u8);
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
            properties: Bytes::new(),
        }
    }
}
