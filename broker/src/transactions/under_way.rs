//! Questions to producers that are under way, and ends of transactions that are (`transactions.I4`, `transactions.I5`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use folio_raft::log_rate_limiter::LogRateLimiter;
use folio_state::sections::transactions::Transactions;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Questions under way of one producer group: fewer than a stock client takes at a time, which are 2,000.
const UNDER_WAY_MAX: usize = 256;
/// Bytes of their messages.
const UNDER_WAY_BYTES_MAX: usize = 4 << 20;
/// A question is under way until its transaction has ended, its producer has said that it does not know, or this time has passed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Ends of this node's clients that are remembered, and for how long: another node leads, and this one learns of the end later.
const ENDING_MAX: usize = 65_536;
const ENDING_FOR: Duration = Duration::from_secs(10);

/// What the task knows besides the state.
#[derive(Default)]
pub(crate) struct Checks {
    under_way: Mutex<HashMap<u64, UnderWay>>,
    ending: Mutex<BTreeMap<u64, Instant>>,
    turn: AtomicUsize,
    pub(super) troubles: LogRateLimiter,
}

struct UnderWay {
    group: Arc<str>,
    since: Instant,
    bytes: usize,
}

impl Checks {
    /// A producer has answered that it does not know.
    pub(super) fn answered(&self, id: u64) {
        self.under_way.lock().remove(&id);
    }

    /// Any number, another one each time: whose turn it is.
    pub(super) fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// A client of this node ends a transaction.
    pub(crate) fn note_end(&self, id: u64) {
        let mut ending = self.ending.lock();
        ending.insert(id, Instant::now());
        if ending.len() > ENDING_MAX {
            ending.pop_first();
        }
    }

    /// Whether a client of this node has just ended it.
    pub(super) fn is_ending(&self, id: u64) -> bool {
        self.ending.lock().get(&id).is_some_and(|at| at.elapsed() < ENDING_FOR)
    }

    /// A question is about to be made.
    pub(super) fn begin(&self, id: u64, group: &Arc<str>, bytes: usize) {
        let check = UnderWay { group: group.clone(), since: Instant::now(), bytes };
        self.under_way.lock().insert(id, check);
    }

    /// Whether one about this transaction is under way.
    pub(super) fn is_under_way(&self, id: u64) -> bool {
        self.under_way.lock().contains_key(&id)
    }

    /// Forgets all that are under way: this node does not lead.
    pub(super) fn clear(&self) {
        self.under_way.lock().clear();
    }

    /// Forgets those that are over.
    pub(super) fn forget(&self, transactions: &Transactions) {
        self.under_way.lock().retain(|id, check| {
            check.since.elapsed() < ANSWER_TIMEOUT && transactions.get(&check.group, *id).is_some()
        });
    }

    /// How many more questions of a group may be made, and their bytes.
    pub(super) fn room(&self, group: &str) -> (usize, usize) {
        let under_way = self.under_way.lock();
        let of_group = under_way.values().filter(|check| *check.group == *group);
        let (count, bytes) = of_group.fold((0, 0), |(count, bytes), check| (count + 1, bytes + check.bytes));
        (UNDER_WAY_MAX.saturating_sub(count), UNDER_WAY_BYTES_MAX.saturating_sub(bytes))
    }
}
