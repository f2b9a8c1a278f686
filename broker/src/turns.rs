//! In which order this node's clients committed a queue's offset, kept wherever the commits go.
//!
//! A commit may wait here for a leader, be handed out again, or travel beside a later one on the way to the leader. The
//! last one that came counts, not the last one that arrives. So each is given a number when it comes from its client:
//! this node never hands out a commit again once a later one has come for the same queue, and the node that leads drops one
//! that arrives after a later one from the same node. Until then a commit is handed out again whenever it is not known what became
//! of it: it says what the offset is to be, so twice is as good as once. And a question for the offset that comes here waits
//! for the commits that came before it, also where this node leads by now: another way to the leader may be shorter.
//!
//! Not here: commits of one queue that come to several nodes. Nobody knows their order; the last that arrives counts.
//!
//! Invariants: `turns.I1`: of two commits for one queue that came to one node, the later one is never followed by the
//! earlier one in the log, and who asks that node is told of neither's past. `turns.I2`: memory is bounded by the
//! requests under way, and by what came in the last [`REMEMBERED`].

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::Mutex;

/// How long a commit is remembered after it arrived: several times what one may wait to be sent and answered.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How often a question looks whether the commits before it have ended.
const ENDED_POLL: Duration = Duration::from_millis(1);
/// Remembered commits after which the old ones are looked for and dropped.
const REMEMBERED_MANY: usize = 65_536;

/// A group's queue: (group, topic, queue).
pub type Key = (String, String, u32);

/// The place of a commit among those that came to one node while it ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Order {
    /// The node it came to.
    pub node: u64,
    /// When that node started, ns: numbers of another start are not comparable.
    pub started: u64,
    /// Later ones have larger numbers.
    pub number: u64,
}

impl Order {
    /// Bytes of an order between nodes.
    const BYTES: usize = 24;

    /// Writes it for another node, big-endian.
    pub fn encode(self, out: &mut BytesMut) {
        [self.node, self.started, self.number].into_iter().for_each(|part| out.put_u64(part));
    }

    /// Takes what [`Order::encode`] has written off the front.
    pub fn decode(bytes: &mut Bytes) -> Option<Order> {
        (bytes.len() >= Order::BYTES).then(|| Order {
            node: bytes.get_u64(),
            started: bytes.get_u64(),
            number: bytes.get_u64(),
        })
    }
}

/// The commits of this node's clients that are under way.
pub struct Turns {
    node: u64,
    started: u64,
    under_way: Mutex<UnderWay>,
}

#[derive(Default)]
struct UnderWay {
    last_number: u64,
    queues: HashMap<Key, Newest>,
}

/// Of one queue: the newest commit's number, and those under way.
struct Newest {
    number: u64,
    under_way: BTreeSet<u64>,
}

impl Turns {
    /// Of a node that starts now.
    pub fn new(node: u64) -> Arc<Turns> {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        Arc::new(Turns { node, started, under_way: Mutex::default() })
    }

    /// A turn for a commit that just came from its client.
    pub fn take(self: &Arc<Turns>, key: Key) -> Turn {
        let mut under_way = self.under_way.lock();
        under_way.last_number += 1;
        let number = under_way.last_number;
        let newest = under_way.queues.entry(key.clone());
        let newest = newest.or_insert_with(|| Newest { number, under_way: BTreeSet::new() });
        newest.number = number;
        newest.under_way.insert(number);
        Turn { turns: self.clone(), key, number }
    }

    /// Before a question for an offset of this queue is handed out: waits until the commits for its queue that came here
    /// before have ended.
    pub async fn let_pass(&self, key: &Key, deadline: tokio::time::Instant) {
        let newest = self.under_way.lock().queues.get(key).map(|newest| newest.number);
        let Some(last) = newest else { return };
        let passed = async {
            while self.is_under_way(key, last) {
                tokio::time::sleep(ENDED_POLL).await;
            }
        };
        drop(tokio::time::timeout_at(deadline, passed).await);
    }

    /// Whether a commit up to the one of this number is under way.
    fn is_under_way(&self, key: &Key, last: u64) -> bool {
        let under_way = self.under_way.lock();
        let first = under_way.queues.get(key).and_then(|newest| newest.under_way.first());
        first.is_some_and(|first| *first <= last)
    }
}

/// One commit's place; dropped when it can not be handed out any more.
pub struct Turn {
    turns: Arc<Turns>,
    key: Key,
    number: u64,
}

impl Turn {
    /// Whether a later commit has come for the same queue: then this one must not be handed out again.
    pub fn is_overtaken(&self) -> bool {
        let under_way = self.turns.under_way.lock();
        under_way.queues.get(&self.key).is_some_and(|newest| newest.number > self.number)
    }

    /// Its place, to travel with it.
    pub fn order(&self) -> Order {
        Order { node: self.turns.node, started: self.turns.started, number: self.number }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut under_way = self.turns.under_way.lock();
        if let Some(newest) = under_way.queues.get_mut(&self.key) {
            newest.under_way.remove(&self.number);
            if newest.under_way.is_empty() {
                under_way.queues.remove(&self.key);
            }
        }
    }
}

/// What arrived lately at the node that leads.
#[derive(Default)]
pub(crate) struct Arrived {
    newest: HashMap<(u64, Key), (Order, Instant)>,
    /// Old ones are looked for when there are so many.
    prune_at: usize,
}

impl Arrived {
    /// Notes a commit; `false` if a later one from the same node has arrived before.
    pub(crate) fn note(&mut self, key: &Key, order: Order) -> bool {
        let now = Instant::now();
        if self.newest.len() >= self.prune_at.max(REMEMBERED_MANY) {
            self.newest.retain(|_, (_, at)| now.duration_since(*at) < REMEMBERED);
            self.prune_at = self.newest.len() * 2;
        }
        let (newest, at) = self.newest.entry((order.node, key.clone())).or_insert((order, now));
        if newest.started == order.started && newest.number > order.number {
            return false;
        }
        (*newest, *at) = (order, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(queue: u32) -> Key {
        ("g".to_owned(), "orders".to_owned(), queue)
    }

    #[test]
    fn a_commit_is_overtaken_by_a_later_one_for_its_queue_even_after_that_one_was_answered() {
        let turns = Turns::new(1);
        let (first, other) = (turns.take(key(0)), turns.take(key(1)));
        assert!(!first.is_overtaken() && !other.is_overtaken());
        let second = turns.take(key(0));
        assert!(first.is_overtaken() && !second.is_overtaken() && !other.is_overtaken());
        drop(second);
        assert!(first.is_overtaken());
        drop((first, other));
        assert!(turns.under_way.lock().queues.is_empty(), "turns.I2");
    }

    #[test]
    fn what_arrives_late_is_told_from_what_came_late() {
        let mut arrived = Arrived::default();
        let order = |node, started, number| Order { node, started, number };
        assert!(arrived.note(&key(0), order(1, 5, 8)));
        assert!(!arrived.note(&key(0), order(1, 5, 7)), "turns.I1");
        assert!(arrived.note(&key(0), order(1, 5, 8)), "the same one, handed out again");
        assert!(arrived.note(&key(1), order(1, 5, 7)), "another queue");
        assert!(arrived.note(&key(0), order(2, 5, 1)), "another node");
        assert!(!arrived.note(&key(0), order(1, 5, 6)), "also after another node's");
        assert!(arrived.note(&key(0), order(1, 4, 1)), "another start");
    }

    #[test]
    fn an_order_is_read_as_it_was_written_and_a_cut_one_is_none() {
        let order = Order { node: 3, started: u64::MAX - 1, number: 9 };
        let mut out = BytesMut::new();
        order.encode(&mut out);
        let whole = out.freeze();
        assert_eq!(whole.len(), Order::BYTES);
        assert_eq!(Order::decode(&mut whole.clone()), Some(order));
        assert_eq!(Order::decode(&mut whole.slice(..Order::BYTES - 1)), None);
    }
}
