//! Orderly locks: which client of a consumer group may consume a queue, and until when.
//!
//! Time is the lease clock's ([`crate::lease_clock`]): each request carries its leader's reading, and the latest reading is
//! part of the state. No wall clock is in it, so a new leader's cannot free a lock that is alive, nor keep one for ever.
//!
//! Invariant `locks.I1`: a queue is given to another client only after its holder gave it back, or after the lock's time to
//! live has really passed since the holder's last request for it, whoever leads meanwhile.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::command::QueueRef;
use crate::cow_map::CowMap;

/// A lock on one queue, held by one client of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lock {
    pub(crate) client: String,
    expires_ms: u64,
}

/// Group -> queue -> lock.
pub(crate) type ByGroup = CowMap<String, OfGroup>;

/// Queue -> lock.
pub(crate) type OfGroup = BTreeMap<QueueRef, Lock>;

/// All locks, and the latest reading of the lease clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Locks {
    groups: ByGroup,
    /// 0 before the first request: until then the locks are those that an earlier build gave by wall clocks.
    clock_ms: u64,
}

/// A client's request for queues.
pub(crate) struct Wish {
    pub(crate) group: String,
    pub(crate) client: String,
    pub(crate) queues: Vec<QueueRef>,
    pub(crate) now_ms: u64,
    pub(crate) ttl_ms: u64,
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
    pub(crate) fn take(&mut self, wish: Wish) -> Vec<QueueRef> {
        let now_ms = wish.now_ms.max(self.clock_ms).max(1);
        if self.clock_ms == 0 {
            // Wall clocks say nothing here: what an earlier build gave is held for one more time to live.
            self.expire_all(now_ms.saturating_add(wish.ttl_ms));
        }
        self.clock_ms = now_ms;
        self.take_at(Wish { now_ms, ..wish })
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
    pub(crate) fn take_by_wall_clock(&mut self, wish: Wish) -> Vec<QueueRef> {
        self.take_at(wish)
    }

    fn take_at(&mut self, wish: Wish) -> Vec<QueueRef> {
        let Wish { group, client, queues, now_ms, ttl_ms } = wish;
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

    /// Forgets the locks of a group that is deleted.
    pub(crate) fn forget(&mut self, group: &str) {
        self.groups.remove(group);
    }

    /// Whether any client of the group holds a lock that is alive at this reading of the lease clock. Those of an earlier
    /// build do not count before their holders renew them: when they end is not known.
    pub(crate) fn are_live(&self, group: &str, now_ms: u64) -> bool {
        let live = |locks: &BTreeMap<QueueRef, Lock>| locks.values().any(|lock| lock.expires_ms > now_ms);
        self.clock_ms > 0 && self.groups.get(group).is_some_and(live)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(number: u32) -> QueueRef {
        QueueRef { topic: "orders".into(), queue: number }
    }

    fn wish(client: &str, now_ms: u64) -> Wish {
        let queues = vec![queue(0), queue(1)];
        Wish { group: "g".into(), client: client.into(), queues, now_ms, ttl_ms: 60_000 }
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

    /// Wall clocks of 2026 in the locks, and a lease clock that has just begun.
    #[test]
    fn i1_locks_of_an_earlier_build_live_one_more_time_to_live() {
        const WALL_MS: u64 = 1_790_000_000_000;
        let mut earlier = Locks::default();
        earlier.take_by_wall_clock(wish("a", WALL_MS));
        let mut locks = Locks::of_earlier_build(earlier.groups);
        assert!(!locks.are_live("g", 5));
        assert_eq!(locks.take(wish("b", 5)), []);
        assert!(locks.are_live("g", 6));
        assert_eq!(locks.take(wish("b", 60_004)), []);
        assert_eq!(locks.take(wish("b", 60_005)), [queue(0), queue(1)]);
    }
}
