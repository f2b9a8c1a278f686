//! Producers of transactions: they send half messages, end most of them, repeat and contradict themselves, and leave some open.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use folio_engine::disk::sim::SeededChoice;
use folio_protocol::half;
use folio_protocol::message::{MessageView, NewMessage};
use folio_protocol::properties::{self, PRODUCER_GROUP, REAL_QUEUE_ID, REAL_TOPIC, UNIQUE_KEY};
use folio_raft::driver::End;
use folio_raft::group::Group;
use folio_raft::proposal::{Proposal, Receipt, Repeat};
use folio_raft::status::Status;
use folio_state::sections::features::TRANSACTIONS;
use folio_state::{Ending, NoteChecks};
use parking_lot::Mutex;

use crate::check::transactions::{GROUP, TOPIC};
use crate::node::{Node, a_leader};

/// Chance that a producer does something in a millisecond, percent.
const RATE: u64 = 6;
/// Transactions that a producer remembers.
const REMEMBERED: usize = 40;

/// What a producer was told.
pub(crate) enum Told {
    /// The half message of this number is stored, and its transaction has this id.
    Begun(u64, u64),
    /// The transaction of this id has ended, in that way as far as the leader remembers.
    Ended(u64, Option<Ending>),
}

pub(crate) struct Producers {
    random: SeededChoice,
    next: u64,
    told: Arc<Mutex<Vec<Told>>>,
    /// Ids of transactions that began.
    begun: Arc<Mutex<Vec<u64>>>,
}

impl Producers {
    pub(crate) fn new(seed: u64) -> Producers {
        Producers { random: SeededChoice::new(seed), next: 1, told: Arc::default(), begun: Arc::default() }
    }

    /// What was answered since the last call.
    pub(crate) fn told(&self) -> Vec<Told> {
        std::mem::take(&mut *self.told.lock())
    }

    /// A producer begins a transaction or ends one, or none does anything.
    pub(crate) fn step(&mut self, nodes: &BTreeMap<u64, Node>, seen: &BTreeMap<u64, Status>) {
        if self.random.below(100) >= RATE {
            return;
        }
        let Some(node) = a_leader(&mut self.random, nodes, seen) else { return };
        let Some(group) = node.group() else { return };
        if group.state().level() < TRANSACTIONS {
            return;
        }
        let known = self.begun.lock().len() as u64;
        if known > 0 && self.random.below(5) < 3 {
            let id = self.begun.lock()[self.random.below(known) as usize];
            let ending = match self.random.below(12) {
                0..6 => Some(Ending::Committed),
                6..9 => Some(Ending::RolledBack),
                9 => Some(Ending::GivenUp),
                _ => None,
            };
            match ending {
                Some(ending) => self.end(node, group, id, ending),
                None => note(node, group, id, self.random.below(9) as u32),
            }
            return;
        }
        self.begin(node, group);
    }

    fn begin(&mut self, node: &Node, group: Group) {
        let number = self.next;
        self.next += 1;
        let messages = vec![half_message(number, self.random.below(900) as usize)];
        let (told, begun) = (self.told.clone(), self.begun.clone());
        let reply = Box::new(move |stored: Result<Receipt, _>| {
            if let Ok(Receipt { positions, .. }) = stored {
                let id = positions[0];
                told.lock().push(Told::Begun(number, id));
                let mut begun = begun.lock();
                begun.push(id);
                if begun.len() > REMEMBERED {
                    begun.remove(0);
                }
            }
        });
        node.spawn(async move {
            if let Err((proposal, error)) = group.propose(Proposal { messages, repeat: Repeat::Store, reply })
            {
                (proposal.reply)(Err(error));
            }
        });
    }

    /// Whatever the leader knows of the transaction when it is asked: the driver looks once more.
    fn end(&self, node: &Node, group: Group, id: u64, ending: Ending) {
        let told = self.told.clone();
        node.spawn(async move {
            let message = message_of(&group, id, ending);
            let is_open = group.state().transactions().get(GROUP, id).is_some();
            if is_open && message.is_none() && ending != Ending::RolledBack {
                return;
            }
            let state = group.clone();
            let reply = Box::new(move |outcome: Result<(), _>| {
                if outcome.is_ok() {
                    told.lock().push(Told::Ended(id, state.state().transactions().ending(id)));
                }
            });
            group.end_transaction(End { group: GROUP.into(), id, ending, message }, reply);
        });
    }
}

fn note(node: &Node, group: Group, id: u64, times: u32) {
    let checks = NoteChecks { group: GROUP.into(), checks: vec![(id, times)], at_ms: 1 };
    node.spawn(async move { group.note_checks(checks, Box::new(drop)) });
}

/// What the end of a transaction stores.
fn message_of(group: &Group, id: u64, ending: Ending) -> Option<NewMessage> {
    let open = *group.state().transactions().get(GROUP, id)?;
    let bytes = group.log().bytes(open.position, open.bytes as usize).ok()?;
    let message = MessageView::parse(&bytes).ok()?;
    match ending {
        Ending::Committed => half::committed(&message, &bytes),
        Ending::RolledBack => None,
        Ending::GivenUp => Some(half::given_up(&message, &bytes, open.checks)),
    }
}

fn half_message(number: u64, padding: usize) -> NewMessage {
    let host: SocketAddr = ([10, 0, 0, 96], 1).into();
    let mut said = BytesMut::new();
    let key = format!("H{number}");
    for (name, value) in
        [(UNIQUE_KEY, &*key), (PRODUCER_GROUP, GROUP), (REAL_TOPIC, TOPIC), (REAL_QUEUE_ID, "0")]
    {
        properties::append(&mut said, name, value);
    }
    NewMessage {
        topic: half::TOPIC.into(),
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
        properties: said.freeze(),
    }
}
