//! Consumers that send messages back, at the leader, and again: at once, when they do not know what became of it, and much later. Some are to
//! come again at once, most after a while, some not within a run.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use folio_engine::disk::sim::SeededChoice;
use folio_protocol::message::NewMessage;
use folio_protocol::names;
use folio_protocol::properties::{self, ORIGIN_MESSAGE_ID};
use folio_raft::driver::SendBack;
use folio_raft::group::Group;
use folio_raft::proposal::ProposeError;
use folio_raft::status::Status;
use folio_state::QueueRef;
use parking_lot::Mutex;

use crate::check::moves::Key;
use crate::check::oracle::Oracle;
use crate::check::place::Place;
use crate::node::{Node, a_leader};

/// The first one also commits offsets and is deleted, by other clients.
const GROUPS: [&str; 2] = ["g", "consumers"];
/// Chance of a request in a millisecond, percent.
const RATE: u64 = 8;
/// How long most retries wait at most, and how long the longest, ms.
const SOON_MS: u64 = 2_500;
const LATE_MS: u64 = 3_600_000;
/// Of the messages that were stored lately one is sent back.
const LATELY: u64 = 40;

type Answers = Arc<Mutex<Vec<(Key, Result<(), ProposeError>)>>>;

pub(crate) struct Consumers {
    random: SeededChoice,
    answers: Answers,
    /// What was sent back so far.
    wishes: Vec<(&'static str, Place)>,
}

impl Consumers {
    pub(crate) fn new(seed: u64) -> Consumers {
        Consumers { random: SeededChoice::new(seed), answers: Answers::default(), wishes: Vec::new() }
    }

    /// What was answered since the last call.
    pub(crate) fn answers(&self) -> Vec<(Key, Result<(), ProposeError>)> {
        std::mem::take(&mut *self.answers.lock())
    }

    /// Somebody sends something back, or nobody does.
    pub(crate) fn step(
        &mut self,
        nodes: &BTreeMap<u64, Node>,
        seen: &BTreeMap<u64, Status>,
        oracle: &mut Oracle,
    ) {
        if self.random.below(100) >= RATE {
            return;
        }
        let Some(node) = a_leader(&mut self.random, nodes, seen) else { return };
        let Some(group) = node.group() else { return };
        let Some((name, place)) = self.wish(oracle) else { return };
        if !has(&group, &place) {
            return;
        }
        // A client that gets no answer at once often sends the same again.
        for _ in 0..=self.random.below(2) {
            oracle.moves.asked(name, &place);
            let (answers, key) = (self.answers.clone(), (name.to_owned(), place.position));
            let reply = Box::new(move |answer| answers.lock().push((key, answer)));
            let delay_ms = self.delay_ms();
            let (group, wish) = (group.clone(), SendBack { delay_ms, ..wish(name, &place) });
            node.spawn(async move { group.send_back(wish, reply) });
        }
    }

    fn delay_ms(&mut self) -> u64 {
        match self.random.below(8) {
            0 | 1 => 0,
            2 => self.random.below(LATE_MS),
            _ => 1 + self.random.below(SOON_MS),
        }
    }

    /// A new one, one of the last, or any of before.
    fn wish(&mut self, oracle: &Oracle) -> Option<(&'static str, Place)> {
        let known = self.wishes.len() as u64;
        let at = match self.random.below(4) {
            0 | 1 => None,
            2 => known.checked_sub(1 + self.random.below(6)),
            _ => Some(self.random.below(known.max(1))),
        };
        if let Some(known) = at.and_then(|at| self.wishes.get(at as usize)) {
            return Some(known.clone());
        }
        let newest = oracle.places.keys().next_back().copied()?;
        let from = newest.saturating_sub(self.random.below(LATELY));
        let place = oracle.places.range(from..).next()?.1.last()?.clone();
        let group = GROUPS[self.random.below(2) as usize];
        self.wishes.push((group, place.clone()));
        Some((group, place))
    }
}

/// Whether the node can give the message to a consumer.
fn has(group: &Group, place: &Place) -> bool {
    let units = group.queues().units(&place.topic, place.queue, place.offset, 1);
    units.is_ok_and(|units| units.first().is_some_and(|unit| unit.position == place.position))
}

/// What a server makes of it.
fn wish(group: &str, place: &Place) -> SendBack {
    let host: SocketAddr = ([10, 0, 0, 98], 1).into();
    let mut origin = BytesMut::new();
    properties::append(&mut origin, ORIGIN_MESSAGE_ID, &place.position.to_string());
    let message = NewMessage {
        topic: names::retry_topic(group).into(),
        queue_id: 0,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 1,
        born_host: host,
        store_timestamp: 0,
        store_host: host,
        reconsume_times: 1,
        prepared_transaction_offset: 0,
        body: place.position.to_le_bytes().to_vec().into(),
        properties: origin.freeze(),
    };
    SendBack {
        group: group.to_owned(),
        queue: QueueRef { topic: place.topic.clone(), queue: place.queue },
        offset: place.offset,
        position: place.position,
        message,
        delay_ms: 0,
    }
}
