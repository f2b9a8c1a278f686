//! Orderly locks: which client of a consumer group may consume a queue, and until when.
//!
//! Time is the lease clock's (crate `raft`): each request carries its leader's reading, and the latest reading is part of
//! the state. No wall clock is in it, so a new leader's cannot free a lock that is alive, nor keep one for ever.
//!
//! Invariant `locks.I1`: a queue is given to another client only after its holder gave it back, or after the lock's time to
//! live has really passed since the holder's last request for it, whoever leads meanwhile.
//!
//! A lock that is over and nobody renews, as its client is dead, stays until [`ExpireLocks`] names it; the leader proposes
//! that now and then. Whether it is over then says the command's reading, so all replicas
//! forget the same. To forget it changes no answer: it was free for everybody.
//!
//! Invariant `locks.I2`: what is forgotten was over at the command's reading of the lease clock. While the leader can
//! propose, locks that are over, and groups without locks, leave the table: it is as large as what living clients hold.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::size::{COUNT_BYTES, new_map, signed};
use crate::bounds::{ENTRIES_MAX, OutOfBounds, at_most, check_client_id, check_group_name, check_topic_name};
use crate::codec::encoded_bytes;
use crate::cow_map::CowMap;
use crate::operation::{Apply, Operation, Outcome};
use crate::queue_ref::QueueRef;
use crate::section::{Has, NextOffsets, Section};

/// Bytes of a lock's time.
const EXPIRY_BYTES: u64 = 8;
/// Bytes of an entry of a command besides its names: lengths and a number.
const ENTRY_BYTES: usize = 32;

/// A lock on one queue, held by one client of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    client: String,
    expires_ms: u64,
}

/// Group -> queue -> lock.
pub(crate) type ByGroup = CowMap<String, OfGroup>;

/// Queue -> lock.
pub type OfGroup = BTreeMap<QueueRef, Lock>;

/// All locks, and the latest reading of the lease clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locks {
    groups: ByGroup,
    /// 0 before the first request: until then the locks are those that an earlier build gave by wall clocks.
    clock_ms: u64,
}

impl Section for Locks {
    const TAG: u16 = 4;
    const DEPENDS_ON_ORDER: bool = true;
}

impl Locks {
    /// The locks that an earlier build gave.
    pub(crate) fn of_earlier_build(groups: ByGroup) -> Locks {
        Locks { groups, clock_ms: 0 }
    }

    /// The latest reading of the lease clock that a request carried.
    pub(crate) fn clock_ms(&self) -> u64 {
        self.clock_ms
    }

    /// Takes or renews locks; the queues that the client holds now, of those it asked for.
    pub(crate) fn take(&mut self, wish: LockQueues) -> Vec<QueueRef> {
        let now_ms = wish.now_ms.max(self.clock_ms).max(1);
        if self.clock_ms == 0 {
            // Wall clocks say nothing here: what an earlier build gave is held for one more time to live.
            self.expire_all(now_ms.saturating_add(wish.ttl_ms));
        }
        self.clock_ms = now_ms;
        self.take_at(LockQueues { now_ms, ..wish })
    }

    fn expire_all(&mut self, expires_ms: u64) {
        let groups: Vec<String> = self.groups.iter().map(|(group, _)| group.clone()).collect();
        for group in groups {
            let locks = self.groups.get_or_default(group);
            locks.values_mut().for_each(|lock| lock.expires_ms = expires_ms);
        }
    }

    /// The locks of a group, alive or not.
    pub(crate) fn of(&self, group: &str) -> Option<&OfGroup> {
        self.groups.get(group)
    }

    /// The same as an earlier build did it, by its leader's wall clock.
    pub(crate) fn take_by_wall_clock(&mut self, wish: LockQueues) -> Vec<QueueRef> {
        self.take_at(wish)
    }

    fn take_at(&mut self, wish: LockQueues) -> Vec<QueueRef> {
        let LockQueues { group, client, queues, now_ms, ttl_ms } = wish;
        let locks = self.groups.get_or_default(group);
        let mut held = Vec::with_capacity(queues.len());
        for queue in queues {
            let free =
                locks.get(&queue).is_none_or(|lock| lock.client == client || lock.expires_ms <= now_ms);
            if free {
                let lock = Lock { client: client.clone(), expires_ms: now_ms.saturating_add(ttl_ms) };
                locks.insert(queue.clone(), lock);
                held.push(queue);
            }
        }
        held
    }

    /// Gives locks back; those of other clients are left alone.
    pub(crate) fn give_back(&mut self, group: &str, client: &str, queues: &[QueueRef]) {
        let Some(locks) = self.groups.get_mut(group) else { return };
        for queue in queues {
            if locks.get(queue).is_some_and(|lock| lock.client == client) {
                locks.remove(queue);
            }
        }
    }

    /// Whether requests have been stamped by the lease clock: else no lock says when it ends.
    pub(crate) fn has_clock(&self) -> bool {
        self.clock_ms > 0
    }

    /// Whether a lock's time is over at this reading, or the latest one that a request carried.
    pub(crate) fn is_over(&self, lock: &Lock, now_ms: u64) -> bool {
        lock.expires_ms <= now_ms.max(self.clock_ms)
    }

    /// Forgets those of these locks whose time is over, and these groups if they have no lock left (`locks.I2`).
    pub(crate) fn expire(&mut self, now_ms: u64, named: &BTreeMap<String, BTreeSet<QueueRef>>) {
        if !self.has_clock() {
            return;
        }
        self.clock_ms = now_ms.max(self.clock_ms);
        for (group, queues) in named {
            let Some(locks) = self.groups.get_mut(group) else { continue };
            for queue in queues {
                if locks.get(queue).is_some_and(|lock| lock.expires_ms <= self.clock_ms) {
                    locks.remove(queue);
                }
            }
            if locks.is_empty() {
                self.groups.remove(group);
            }
        }
    }

    /// Locks whose time is over at this reading, and groups without locks: some of them, with names of at most so many bytes
    /// together, or one longer one.
    pub fn over(&self, now_ms: u64, bytes_max: usize) -> BTreeMap<String, BTreeSet<QueueRef>> {
        let (mut over, mut bytes) = (BTreeMap::<String, BTreeSet<QueueRef>>::new(), 0);
        if !self.has_clock() {
            return over;
        }
        for (group, locks) in &self.groups {
            let is_over = locks.iter().filter(|(_, lock)| self.is_over(lock, now_ms));
            let queues = is_over.map(|(queue, _)| Some(queue));
            // One without a queue is of the group itself.
            for queue in queues.chain(locks.is_empty().then_some(None)) {
                bytes += group.len() + queue.map_or(0, |queue| queue.topic.len()) + ENTRY_BYTES;
                if bytes > bytes_max && !over.is_empty() {
                    return over;
                }
                over.entry(group.clone()).or_default().extend(queue.cloned());
            }
        }
        over
    }

    /// Forgets the locks of a group that is deleted.
    pub(crate) fn forget(&mut self, group: &str) {
        self.groups.remove(group);
    }

    fn bytes_of_expired(&self, group: &str, queues: &BTreeSet<QueueRef>, now_ms: u64) -> u64 {
        let Some(locks) = self.of(group).filter(|_| self.has_clock()) else { return 0 };
        let held = queues.iter().filter_map(|queue| locks.get_key_value(queue));
        let expired: Vec<_> = held.filter(|(_, lock)| self.is_over(lock, now_ms)).collect();
        let of_group = if expired.len() == locks.len() { encoded_bytes(group) + COUNT_BYTES } else { 0 };
        expired.iter().map(encoded_bytes).sum::<u64>() + of_group
    }

    /// As if all of them were granted.
    pub(crate) fn growth_of_locks(&self, wish: &LockQueues) -> i64 {
        let locks = self.of(&wish.group);
        let lock_bytes = signed(encoded_bytes(&wish.client) + EXPIRY_BYTES);
        let new_group = if locks.is_none() { new_map(&wish.group) } else { 0 };
        let each = wish.queues.iter().map(|queue| match locks.and_then(|locks| locks.get(queue)) {
            Some(lock) => (lock_bytes - signed(encoded_bytes(lock))).max(0),
            None => lock_bytes + signed(encoded_bytes(queue)),
        });
        signed(new_group) + each.sum::<i64>()
    }

    /// Whether any client of the group holds a lock that is alive at this reading of the lease clock. Those of an earlier
    /// build do not count before their holders renew them: when they end is not known.
    pub(crate) fn are_live(&self, group: &str, now_ms: u64) -> bool {
        let live = |locks: &BTreeMap<QueueRef, Lock>| locks.values().any(|lock| lock.expires_ms > now_ms);
        self.clock_ms > 0 && self.groups.get(group).is_some_and(live)
    }
}

/// Takes or renews the locks of queues for one client of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockQueues {
    /// The consumer group.
    pub group: String,
    /// The client that asks.
    pub client: String,
    /// The queues it asks for.
    pub queues: Vec<QueueRef>,
    /// The leader's reading of the lease clock.
    pub now_ms: u64,
    /// How long a lock lives without a renewal, milliseconds.
    pub ttl_ms: u64,
}

impl Operation for LockQueues {
    const KIND: u16 = 48;
    const DEPENDS_ON_ORDER: bool = true;
    const IS_STAMPED: bool = true;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        check_group_name(&self.group)?;
        check_client_id(&self.client)?;
        at_most("queues in one command", self.queues.len(), ENTRIES_MAX)?;
        self.queues.iter().try_for_each(|queue| check_topic_name(&queue.topic))
    }
}

impl<S: Has<Locks>> Apply<S> for LockQueues {
    fn growth(&self, state: &S, _: &dyn NextOffsets) -> i64 {
        Locks::within(state).growth_of_locks(self)
    }

    fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
        Outcome::Locked(Locks::within_mut(state).take(self))
    }
}

/// Gives locks back; those of other clients are left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnlockQueues {
    /// The consumer group.
    pub group: String,
    /// The client that gives them back.
    pub client: String,
    /// The queues it gives back.
    pub queues: Vec<QueueRef>,
}

impl Operation for UnlockQueues {
    const KIND: u16 = 49;
    const DEPENDS_ON_ORDER: bool = true;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        Ok(())
    }
}

impl<S: Has<Locks>> Apply<S> for UnlockQueues {
    fn growth(&self, state: &S, _: &dyn NextOffsets) -> i64 {
        let Some(locks) = Locks::within(state).of(&self.group) else { return 0 };
        let held = self.queues.iter().filter_map(|queue| locks.get_key_value(queue));
        let of_client = held.filter(|(_, lock)| lock.client == self.client);
        -of_client.map(|held| signed(encoded_bytes(&held))).sum::<i64>()
    }

    fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
        Locks::within_mut(state).give_back(&self.group, &self.client, &self.queues);
        Outcome::Done
    }
}

/// Forgets those of these locks whose time is over, and these groups if no lock of theirs is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpireLocks {
    /// The leader's reading of the lease clock.
    pub now_ms: u64,
    /// Consumer groups, and queues that they locked.
    pub locks: BTreeMap<String, BTreeSet<QueueRef>>,
}

impl Operation for ExpireLocks {
    const KIND: u16 = 50;
    const DEPENDS_ON_ORDER: bool = true;
    const IS_STAMPED: bool = true;

    fn check_bounds(&self) -> Result<(), OutOfBounds> {
        Ok(())
    }
}

impl<S: Has<Locks>> Apply<S> for ExpireLocks {
    fn growth(&self, state: &S, _: &dyn NextOffsets) -> i64 {
        let expired = self.locks.iter();
        let bytes =
            expired.map(|(group, queues)| Locks::within(state).bytes_of_expired(group, queues, self.now_ms));
        -signed(bytes.sum())
    }

    fn apply(self, state: &mut S, _: &dyn NextOffsets) -> Outcome {
        Locks::within_mut(state).expire(self.now_ms, &self.locks);
        Outcome::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(number: u32) -> QueueRef {
        QueueRef { topic: "orders".into(), queue: number }
    }

    fn wish(client: &str, now_ms: u64) -> LockQueues {
        let queues = vec![queue(0), queue(1)];
        LockQueues { group: "g".into(), client: client.into(), queues, now_ms, ttl_ms: 60_000 }
    }

    #[test]
    fn i1_a_lock_is_exclusive_until_it_expires_or_is_given_back() {
        let mut locks = Locks::default();
        assert_eq!(locks.take(wish("a", 0)), [queue(0), queue(1)]);
        assert_eq!(locks.take(wish("b", 59_999)), []);
        assert_eq!(locks.take(wish("a", 60_000)), [queue(0), queue(1)]);
        assert_eq!(locks.take(wish("b", 119_999)), [], "the renewal counts");
        assert!(locks.are_live("g", 119_999) && !locks.are_live("g", 120_000) && !locks.are_live("h", 0));
        assert_eq!(locks.take(wish("b", 120_000)), [queue(0), queue(1)]);
        locks.give_back("g", "a", &[queue(0)]);
        assert_eq!(locks.take(wish("a", 120_001)), [], "only the holder unlocks");
        locks.give_back("g", "b", &[queue(0)]);
        assert_eq!(locks.take(wish("a", 120_002)), [queue(0)]);
    }

    #[test]
    fn i1_a_reading_that_is_behind_counts_as_the_latest_one() {
        let mut locks = Locks::default();
        locks.take(wish("a", 100_000));
        assert_eq!(locks.take(wish("a", 40_000)), [queue(0), queue(1)]);
        assert_eq!((locks.clock_ms(), locks.take(wish("b", 159_999))), (100_000, vec![]));
    }

    /// The locks of dead clients stayed in every checkpoint for ever, and so did groups that had given back all of theirs.
    #[test]
    fn locks_i2_locks_that_were_over_stayed_for_ever() {
        let mut locks = Locks::default();
        assert_eq!(locks.take(wish("dead", 1)), [queue(0), queue(1)]);
        locks.take(LockQueues { group: "empty".into(), ..wish("gone", 1) });
        locks.give_back("empty", "gone", &[queue(0), queue(1)]);
        locks.take(LockQueues { group: "alive".into(), ..wish("alive", 50_000) });
        let names = |over: &BTreeMap<String, BTreeSet<QueueRef>>| -> Vec<(String, usize)> {
            over.iter().map(|(group, queues)| (group.clone(), queues.len())).collect()
        };
        assert_eq!(names(&locks.over(60_000, 1 << 20)), [("empty".to_owned(), 0)]);
        let over = locks.over(60_001, 1 << 20);
        assert_eq!(names(&over), [("empty".to_owned(), 0), ("g".to_owned(), 2)]);
        assert_eq!(names(&locks.over(60_001, 1)), [("empty".to_owned(), 0)], "some at a time");
        // Renewed before the command is applied: it is the command's reading that counts.
        let mut renewed = locks.clone();
        renewed.take(LockQueues { queues: vec![queue(1)], ..wish("dead", 60_001) });
        renewed.expire(60_001, &over);
        assert_eq!(
            renewed.of("g").map(|locks| locks.keys().cloned().collect::<Vec<_>>()),
            Some(vec![queue(1)])
        );
        locks.expire(60_001, &over);
        assert!(locks.of("g").is_none() && locks.of("empty").is_none() && locks.are_live("alive", 60_001));
        assert_eq!(locks.clock_ms(), 60_001);
    }

    #[test]
    fn locks_i2_what_is_forgotten_was_over_also_when_the_command_names_more() {
        let mut locks = Locks::default();
        locks.take(wish("a", 1));
        let named = [("g".to_owned(), [queue(0), queue(7)].into()), ("?".to_owned(), [].into())].into();
        locks.expire(60_000, &named);
        assert_eq!(locks.take(wish("b", 60_000)), []);
    }

    /// Wall clocks of 2026 in the locks, and a lease clock that has just begun.
    #[test]
    fn i1_locks_of_an_earlier_build_live_one_more_time_to_live() {
        const WALL_MS: u64 = 1_790_000_000_000;
        let mut earlier = Locks::default();
        earlier.take_by_wall_clock(wish("a", WALL_MS));
        let mut locks = Locks::of_earlier_build(earlier.groups);
        assert!(!locks.are_live("g", 5));
        assert!(locks.over(u64::MAX, 1 << 20).is_empty(), "when they end is not known");
        assert_eq!(locks.take(wish("b", 5)), []);
        assert!(locks.are_live("g", 6));
        assert_eq!(locks.take(wish("b", 60_004)), []);
        assert_eq!(locks.take(wish("b", 60_005)), [queue(0), queue(1)]);
    }
}
