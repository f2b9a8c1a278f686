//! Producers that delay messages, and take some of them back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use folio_engine::disk::sim::SeededChoice;
use folio_protocol::message::NewMessage;
use folio_protocol::parked;
use folio_protocol::properties::{self, REAL_TOPIC, UNIQUE_KEY};
use folio_raft::driver::Recall;
use folio_raft::proposal::{Proposal, ProposeError, Repeat};
use folio_raft::status::Status;
use folio_state::sections::features::TIMERS;
use parking_lot::Mutex;

use crate::check::timers::TOPIC;
use crate::node::{Node, a_leader};

/// Chance of a message in a millisecond, percent.
const RATE: u64 = 4;
/// Most are due within this time; some are not within a run.
const SOON_MS: u64 = 3_000;
const LATE_MS: u64 = 3_600_000;

/// What a producer was told.
pub(crate) enum Told {
    Sent(u64, bool),
    Recalled(u64, Result<(), ProposeError>),
}

pub(crate) struct Producers {
    random: SeededChoice,
    next: u64,
    told: Arc<Mutex<Vec<Told>>>,
    /// Numbers and due times of what was sent lately.
    lately: Vec<(u64, u64)>,
}

impl Producers {
    pub(crate) fn new(seed: u64) -> Producers {
        Producers { random: SeededChoice::new(seed), next: 1, told: Arc::default(), lately: Vec::new() }
    }

    /// What was answered since the last call.
    pub(crate) fn told(&self) -> Vec<Told> {
        std::mem::take(&mut *self.told.lock())
    }

    /// Somebody sends something or recalls it, or nobody does.
    pub(crate) fn step(&mut self, nodes: &BTreeMap<u64, Node>, seen: &BTreeMap<u64, Status>) {
        if self.random.below(100) >= RATE {
            return;
        }
        let Some(node) = a_leader(&mut self.random, nodes, seen) else { return };
        let Some(group) = node.group() else { return };
        if group.state().level() < TIMERS {
            return;
        }
        if self.random.below(8) == 0 && !self.lately.is_empty() {
            let (number, due_ms) = self.lately[self.random.below(self.lately.len() as u64) as usize];
            let recall = Recall { due_ms, topic: TOPIC.into(), unique_key: key(number) };
            let told = self.told.clone();
            let reply = Box::new(move |answer| told.lock().push(Told::Recalled(number, answer)));
            node.spawn(async move { group.recall(recall, reply) });
            return;
        }
        let number = self.next;
        self.next += 1;
        let range = if self.random.below(6) == 0 { LATE_MS } else { SOON_MS };
        let due_ms = node.machine.wall.now().as_millis() as u64 + self.random.below(range);
        self.lately.push((number, due_ms));
        if self.lately.len() > 30 {
            self.lately.remove(0);
        }
        let (messages, told) =
            (vec![delayed(number, due_ms, self.random.below(900) as usize)], self.told.clone());
        let reply =
            Box::new(move |stored: Result<_, _>| told.lock().push(Told::Sent(number, stored.is_ok())));
        node.spawn(async move {
            if let Err((proposal, error)) = group.propose(Proposal { messages, repeat: Repeat::Store, reply })
            {
                (proposal.reply)(Err(error));
            }
        });
    }
}

fn key(number: u64) -> String {
    format!("K{number}")
}

fn delayed(number: u64, due_ms: u64, padding: usize) -> NewMessage {
    let host: SocketAddr = ([10, 0, 0, 97], 1).into();
    let mut said = BytesMut::new();
    properties::append(&mut said, UNIQUE_KEY, &key(number));
    properties::append(&mut said, REAL_TOPIC, TOPIC);
    NewMessage {
        topic: parked::TOPIC.into(),
        queue_id: 0,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 1,
        born_host: host,
        store_timestamp: 0,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: due_ms as i64,
        body: [&number.to_le_bytes()[..], &vec![0; padding]].concat().into(),
        properties: said.freeze(),
    }
}
