//! The entries that were added last, a number of them at most: looked up by key, forgotten in the order in which they came.

use serde::{Deserialize, Serialize};

use crate::codec::encoded_bytes;
use crate::cow_map::CowMap;

/// Bytes of an entry beside its value: key and number, twice.
const ENTRY_BYTES: u64 = 32;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recent<V: Clone> {
    /// Key -> number, value.
    entries: CowMap<u64, (u64, V)>,
    /// Number -> key.
    order: CowMap<u64, u64>,
    /// The number of the next entry.
    next: u64,
}

impl<V: Clone + Serialize> Recent<V> {
    pub(crate) fn get(&self, key: u64) -> Option<&V> {
        self.entries.get(&key).map(|(_, value)| value)
    }

    /// Adds an entry, the newest from now on. Of more than `max` the oldest is forgotten.
    pub(crate) fn add(&mut self, key: u64, value: V, max: u64) {
        self.remove(key);
        self.entries.insert(key, (self.next, value));
        self.order.insert(self.next, key);
        self.next += 1;
        if self.entries.len() as u64 > max {
            let oldest = self.order.values().next().copied();
            oldest.into_iter().for_each(|oldest| drop(self.remove(oldest)));
        }
    }

    /// By how many bytes the encoded entries grow with one more.
    pub(crate) fn growth(&self, key: u64, value: &V, max: u64) -> i64 {
        let is_replaced = self.get(key).is_some() || self.entries.len() as u64 >= max;
        if is_replaced { 0 } else { entry_bytes(value) }
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<V> {
        let (number, value) = self.entries.remove(&key)?;
        self.order.remove(&number);
        Some(value)
    }
}

/// Bytes of one encoded entry.
pub(crate) fn entry_bytes(value: &impl Serialize) -> i64 {
    i64::try_from(ENTRY_BYTES + encoded_bytes(value)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_whatever_its_key() {
        let mut recent = Recent::default();
        for key in [9, 1, 5, 9] {
            let (before, growth) = (encoded_bytes(&recent) as i64, recent.growth(key, &true, 2));
            recent.add(key, true, 2);
            assert_eq!(encoded_bytes(&recent) as i64, before + growth);
        }
        assert_eq!([1, 5, 9].map(|key| recent.get(key).is_some()), [false, true, true]);
        recent.add(5, false, 2);
        recent.add(7, true, 2);
        assert_eq!([5, 7, 9].map(|key| recent.get(key).copied()), [Some(false), Some(true), None]);
        assert_eq!((recent.remove(5), recent.remove(5)), (Some(false), None));
    }
}
