//! An ordered map of which a copy costs little, however large it is: the copy shares all that neither side changes later.
//!
//! The entries lie in chunks, each an ordered map of its own behind a shared pointer. To copy the map copies the pointers;
//! to change an entry copies its chunk, if a copy of the map still shares it. A checkpoint's capture is such a copy.
//!
//! Encoded it is what a `BTreeMap` of the same entries is.
//!
//! - `cow_map.I1`: no chunk is empty or has more than [`CHUNK_ENTRIES_MAX`] entries, and all keys of one are below those of
//!   the next.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::collections::btree_map;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// Entries that a change copies at most.
const CHUNK_ENTRIES_MAX: usize = 64;

type Chunk<K, V> = Arc<BTreeMap<K, V>>;

/// The map.
#[derive(Clone)]
pub(crate) struct CowMap<K, V> {
    chunks: Vec<Chunk<K, V>>,
}

impl<K: Ord + Clone, V: Clone> CowMap<K, V> {
    /// The value of a key.
    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.chunks.get(self.chunk_of(key))?.get(key)
    }

    /// Whether the key is there.
    pub(crate) fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// The value of a key, to be changed.
    pub(crate) fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        // Looked at first: what is not there copies nothing.
        let at = self.chunk_of(key);
        self.chunks.get(at)?.get(key)?;
        Arc::make_mut(&mut self.chunks[at]).get_mut(key)
    }

    /// The value of a key, to be changed; a new one if there is none.
    pub(crate) fn get_or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        if !self.contains_key(&key) {
            self.insert(key.clone(), V::default());
        }
        let at = self.chunk_of(&key);
        Arc::make_mut(&mut self.chunks[at]).entry(key).or_default()
    }

    /// Sets the value of a key; returns the one it had.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        if self.chunks.is_empty() {
            self.chunks.push(Arc::new(BTreeMap::from([(key, value)])));
            return None;
        }
        let at = self.chunk_of(&key).min(self.chunks.len() - 1);
        let chunk = Arc::make_mut(&mut self.chunks[at]);
        let before = chunk.insert(key, value);
        if chunk.len() > CHUNK_ENTRIES_MAX
            && let Some(middle) = chunk.keys().nth(CHUNK_ENTRIES_MAX / 2).cloned()
        {
            let upper = chunk.split_off(&middle);
            self.chunks.insert(at + 1, Arc::new(upper));
        }
        before
    }

    /// Removes a key; returns its value.
    pub(crate) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let at = self.chunk_of(key);
        self.chunks.get(at)?.get(key)?;
        let chunk = Arc::make_mut(&mut self.chunks[at]);
        let removed = chunk.remove(key);
        if chunk.is_empty() {
            self.chunks.remove(at);
        }
        removed
    }

    /// All entries, by key ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// The entries from a key on, by key ascending.
    pub(crate) fn iter_from(&self, key: &K) -> impl Iterator<Item = (&K, &V)> + use<'_, K, V> {
        let first = self.chunk_of(key);
        let of_first = self.chunks.get(first).map(|chunk| chunk.range(key..));
        let rest = self.chunks.iter().skip(first + 1).flat_map(|chunk| chunk.iter());
        of_first.into_iter().flatten().chain(rest)
    }

    /// All values, by key ascending.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len()).sum()
    }

    /// The chunk that has the key, or would have it; the last one for a key beyond all, the first for one before all.
    fn chunk_of<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        let begins_behind = |chunk: &Chunk<K, V>| {
            chunk.first_key_value().is_some_and(|(first, _)| Borrow::<Q>::borrow(first) > key)
        };
        self.chunks.partition_point(|chunk| !begins_behind(chunk)).saturating_sub(1)
    }
}

impl<K, V> Default for CowMap<K, V> {
    fn default() -> Self {
        CowMap { chunks: Vec::new() }
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> PartialEq for CowMap<K, V> {
    /// Of the entries: two histories may have cut the chunks differently.
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<K: Ord + Clone, V: Clone + Eq> Eq for CowMap<K, V> {}

impl<K: Ord + Clone + fmt::Debug, V: Clone + fmt::Debug> fmt::Debug for CowMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for CowMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = CowMap::default();
        entries.into_iter().for_each(|(key, value)| drop(map.insert(key, value)));
        map
    }
}

impl<'a, K, V> IntoIterator for &'a CowMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = std::iter::Flatten<Chunks<'a, K, V>>;

    fn into_iter(self) -> Self::IntoIter {
        Chunks(self.chunks.iter()).flatten()
    }
}

/// The chunks of a map, each as what its entries are read from.
#[derive(Debug)]
pub(crate) struct Chunks<'a, K, V>(std::slice::Iter<'a, Chunk<K, V>>);

impl<'a, K, V> Iterator for Chunks<'a, K, V> {
    type Item = btree_map::Iter<'a, K, V>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|chunk| chunk.iter())
    }
}

impl<K: Ord + Clone + Serialize, V: Clone + Serialize> Serialize for CowMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (key, value) in self.iter() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de, K, V> Deserialize<'de> for CowMap<K, V>
where
    K: Ord + Clone + Deserialize<'de>,
    V: Clone + Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<K, V>(PhantomData<(K, V)>);
        impl<'de, K, V> Visitor<'de> for Entries<K, V>
        where
            K: Ord + Clone + Deserialize<'de>,
            V: Clone + Deserialize<'de>,
        {
            type Value = CowMap<K, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut map = CowMap::default();
                while let Some((key, value)) = entries.next_entry()? {
                    map.insert(key, value);
                }
                Ok(map)
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u16, u8),
        Remove(u16),
        Change(u16),
        Count(u16),
        Copy,
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = || 0..300u16;
        prop_oneof![
            6 => (key(), any::<u8>()).prop_map(|(key, value)| Step::Insert(key, value)),
            3 => key().prop_map(Step::Remove),
            1 => key().prop_map(Step::Change),
            1 => key().prop_map(Step::Count),
            1 => Just(Step::Copy),
        ]
    }

    fn check(map: &CowMap<u16, u8>, model: &BTreeMap<u16, u8>) {
        assert!(map.iter().eq(model.iter()) && map.into_iter().eq(model));
        assert_eq!(map.len(), model.len());
        assert!(map.chunks.iter().all(|chunk| (1..=CHUNK_ENTRIES_MAX).contains(&chunk.len())), "cow_map.I1");
        let bytes = codec::encode(model);
        assert_eq!(codec::encode(map), bytes, "the bytes of a BTreeMap");
        assert_eq!(&codec::decode::<CowMap<u16, u8>>(&bytes).unwrap(), map);
    }

    proptest! {
        #[test]
        fn it_is_a_btree_map_and_a_copy_does_not_change(steps in prop::collection::vec(step(), 0..900)) {
            let (mut map, mut model) = (CowMap::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for step in steps {
                match step {
                    Step::Insert(key, value) => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    Step::Remove(key) => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                    Step::Change(key) => {
                        prop_assert_eq!(map.get(&key), model.get(&key));
                        prop_assert_eq!(map.contains_key(&key), model.contains_key(&key));
                        if let (Some(mine), Some(its)) = (map.get_mut(&key), model.get_mut(&key)) {
                            (*mine, *its) = (1, 1);
                        }
                    }
                    Step::Count(key) => {
                        let (mine, its) = (map.get_or_default(key), model.entry(key).or_default());
                        (*mine, *its) = (mine.wrapping_add(1), its.wrapping_add(1));
                    }
                    Step::Copy => copies.push((map.clone(), model.clone())),
                }
            }
            check(&map, &model);
            copies.iter().for_each(|(map, model)| check(map, model));
        }
    }
}
