//! Consumers that pop: they send messages of their own, pop them from their topic and its retry topic, acknowledge most, some of them late or twice,
//! change the invisible time of others, and go back now and then.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use folio_engine::disk::sim::SeededChoice;
use folio_protocol::message::{MessageView, NewMessage};
use folio_raft::driver::Counted;
use folio_raft::group::Group;
use folio_raft::proposal::{Proposal, Receipt, Repeat};
use folio_raft::status::Status;
use folio_state::sections::features::POP;
use folio_state::sections::popped::Popping;
use folio_state::{AckPopped, BatchId, ChangePopped, PopMessages, PopQueue};
use parking_lot::Mutex;

use crate::check::popped::{GROUP, RETRY, TOPIC};
use crate::node::{Node, a_leader};

/// Chance that a consumer does something in a millisecond, percent.
const RATE: u64 = 8;
/// Messages that consumers remember.
const REMEMBERED: usize = 60;
/// Messages of one pop.
const MAX: u64 = 6;

/// What a consumer was told.
pub(crate) enum Told {
    /// A message of this number is stored.
    Sent(u64),
    /// A message was acknowledged.
    Acked(u64),
}

/// A message that was given.
#[derive(Clone)]
struct Given {
    queue: PopQueue,
    id: BatchId,
    invisible_ms: u64,
    offset: u64,
    number: u64,
}

pub(crate) struct Poppers {
    random: SeededChoice,
    next: u64,
    told: Arc<Mutex<Vec<Told>>>,
    given: Arc<Mutex<Vec<Given>>>,
}

impl Poppers {
    pub(crate) fn new(seed: u64) -> Poppers {
        Poppers { random: SeededChoice::new(seed), next: 1, told: Arc::default(), given: Arc::default() }
    }

    /// What was answered since the last call.
    pub(crate) fn told(&self) -> Vec<Told> {
        std::mem::take(&mut *self.told.lock())
    }

    /// A consumer does something, or none does anything.
    pub(crate) fn step(&mut self, nodes: &BTreeMap<u64, Node>, seen: &BTreeMap<u64, Status>) {
        if self.random.below(100) >= RATE {
            return;
        }
        let Some(node) = a_leader(&mut self.random, nodes, seen) else { return };
        let Some(group) = node.group() else { return };
        if group.state().level() < POP {
            return;
        }
        let now_ms = u64::try_from(node.machine.wall.now().as_millis()).unwrap_or(0);
        match self.random.below(10) {
            0..3 => self.send(node, group),
            3..6 => self.pop(node, group, now_ms),
            6 => self.change(node, group, now_ms),
            _ => self.ack(node, group, now_ms),
        }
    }

    fn send(&mut self, node: &Node, group: Group) {
        let number = self.next;
        self.next += 1;
        let messages = vec![message(number, self.random.below(500) as usize)];
        let told = self.told.clone();
        let reply = Box::new(move |stored: Result<Receipt, _>| {
            if stored.is_ok() {
                told.lock().push(Told::Sent(number));
            }
        });
        node.spawn(async move {
            if let Err((proposal, error)) = group.propose(Proposal { messages, repeat: Repeat::Store, reply })
            {
                (proposal.reply)(Err(error));
            }
        });
    }

    fn pop(&mut self, node: &Node, group: Group, now_ms: u64) {
        let topic = if self.random.below(3) == 0 { RETRY } else { TOPIC };
        let queue = PopQueue { group: GROUP.into(), topic: topic.into(), queue: 0 };
        let (max, invisible_ms) = (1 + self.random.below(MAX), 100 + self.random.below(3000));
        let given = self.given.clone();
        node.spawn(async move {
            let from = group.state().offset_as_stored(&queue);
            let Some((min, end)) = group.queues().bounds(&queue.topic, 0) else { return };
            // As the broker: what retention lets go is passed over.
            let floor = group.pop_floor();
            let kept = group.queues().search(&queue.topic, 0, |unit| unit.position.cmp(&floor));
            let start = from.unwrap_or(0).max(min).max(kept.ok().flatten().unwrap_or(0));
            let count = max.min(end.saturating_sub(start));
            let first = group.queues().units(&queue.topic, 0, start, 1).ok();
            let Some(position) = first.and_then(|units| units.first().map(|unit| unit.position)) else {
                return;
            };
            let id = BatchId { start, popped_ms: now_ms };
            let pop = PopMessages {
                queue: queue.clone(),
                from,
                next: start + count,
                id,
                diffs: (0..count as u32).collect(),
                position,
                visible_ms: now_ms + invisible_ms,
                retry_v2: false,
                attempt: None,
            };
            let state = group.clone();
            let reply = Box::new(move |outcome: Result<(), _>| {
                if outcome.is_err() || state.state().popped().batch(&queue, id).is_none() {
                    return;
                }
                let mut given = given.lock();
                for offset in start..start + count {
                    let Some(number) = number_of(&state, &queue, offset) else { continue };
                    given.push(Given { queue: queue.clone(), id, invisible_ms, offset, number });
                    if given.len() > REMEMBERED {
                        given.remove(0);
                    }
                }
            });
            group.pop(pop, reply);
        });
    }

    fn one(&mut self) -> Option<Given> {
        let given = self.given.lock();
        let known = given.len() as u64;
        if known == 0 { None } else { Some(given[self.random.below(known) as usize].clone()) }
    }

    fn ack(&mut self, node: &Node, group: Group, now_ms: u64) {
        let Some(given) = self.one() else { return };
        let told = self.told.clone();
        node.spawn(async move {
            let Given { queue, id, invisible_ms, offset, number } = given;
            let ack = AckPopped { queue: queue.clone(), id, offset };
            let (state, counted) = (group.clone(), Counted::default());
            let said = counted.clone();
            let reply = Box::new(move |outcome: Result<(), _>| {
                let state = state.state();
                let committed = state.offset_as_stored(&queue);
                let popping = state.popped().popping(&queue, (id, invisible_ms), (offset, committed), now_ms);
                // As the broker: what the driver has not done itself is asked behind a proof, which a node of this world has by the
                // outcome of its own move alone. A message that the state calls acknowledged is.
                if outcome.is_ok() && (said.is_so() || popping == Popping::Acked) {
                    told.lock().push(Told::Acked(number));
                }
            });
            group.ack_popped(ack, counted, reply);
        });
    }

    fn change(&mut self, node: &Node, group: Group, now_ms: u64) {
        let Some(Given { queue, id, offset, .. }) = self.one() else { return };
        let visible_ms = now_ms + self.random.below(2000);
        let change = ChangePopped { queue, id, offset, popped_ms: now_ms.max(id.popped_ms + 1), visible_ms };
        node.spawn(async move { group.change_popped(change, Counted::default(), Box::new(drop)) });
    }
}

fn number_of(group: &Group, queue: &PopQueue, offset: u64) -> Option<u64> {
    let bytes = group.popped_message(queue, offset).ok()??;
    let message = MessageView::parse(&bytes).ok()?;
    message.body().first_chunk().map(|number| u64::from_le_bytes(*number))
}

fn message(number: u64, padding: usize) -> NewMessage {
    let host: SocketAddr = ([10, 0, 0, 95], 1).into();
    NewMessage {
        topic: TOPIC.into(),
        queue_id: 0,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 1,
        born_host: host,
        store_timestamp: 0,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: [&number.to_le_bytes()[..], &vec![0; padding]].concat().into(),
        properties: bytes::Bytes::new(),
    }
}
