//! Clients that want the same queue for themselves: no two of them may believe that they have it.
//!
//! A client that was told that it holds a lock counts its time to live from the moment in which it asked. Who is told so later,
//! and asked after the first was told, must not be told before that time is over.

use std::collections::BTreeMap;
use std::sync::Arc;

use folio_engine::disk::sim::SeededChoice;
use folio_raft::status::Status;
use folio_state::{Outcome, QueueRef};
use parking_lot::Mutex;

use crate::check::{Checked, violation};
use crate::node::{Node, a_leader};

/// Short, so that locks end while leaders change.
const TTL_MS: u64 = 1_500;
/// A node's clock and the world's may read one tick apart, at both ends.
const TICKS_MS: u64 = 2;
const CLIENTS: u64 = 3;

/// A client was told that it holds the queue.
#[derive(Debug, Clone, Copy)]
struct Held {
    client: u64,
    asked_ms: u64,
    told_ms: u64,
}

pub(crate) struct Lockers {
    random: SeededChoice,
    /// Client, and when it asked.
    answers: Arc<Mutex<Vec<(u64, u64)>>>,
    held: Vec<Held>,
}

impl Lockers {
    pub(crate) fn new(seed: u64) -> Lockers {
        Lockers { random: SeededChoice::new(seed), answers: Arc::default(), held: Vec::new() }
    }

    /// Somebody asks whoever says that it leads, or nobody does.
    pub(crate) fn step(&mut self, now_ms: u64, nodes: &BTreeMap<u64, Node>, seen: &BTreeMap<u64, Status>) {
        if self.random.below(200) > 0 {
            return;
        }
        let client = self.random.below(CLIENTS);
        let Some(node) = a_leader(&mut self.random, nodes, seen) else { return };
        let Some(group) = node.group() else { return };
        let answers = self.answers.clone();
        node.spawn(async move {
            let queue = QueueRef { topic: "orders".into(), queue: 0 };
            let locked = group.lock_queues("locks".into(), client.to_string(), vec![queue], TTL_MS).await;
            if matches!(locked, Ok(Outcome::Locked(held)) if !held.is_empty()) {
                answers.lock().push((client, now_ms));
            }
        });
    }

    /// Compares what was answered since the last call with what others were told.
    pub(crate) fn check(&mut self, now_ms: u64) -> Checked {
        for (client, asked_ms) in std::mem::take(&mut *self.answers.lock()) {
            let told = Held { client, asked_ms, told_ms: now_ms };
            let before = self.held.iter().filter(|held| held.client != client && held.told_ms < asked_ms);
            if let Some(held) = before.max_by_key(|held| held.asked_ms)
                && now_ms + TICKS_MS < held.asked_ms + TTL_MS
            {
                return Err(violation("a lock has one holder", format!("{held:?} and {told:?}")));
            }
            self.held.push(told);
            // An answer may be late by as long as a process may be stopped.
            self.held.retain(|held| held.told_ms + 10 * TTL_MS > now_ms);
        }
        Ok(())
    }
}
