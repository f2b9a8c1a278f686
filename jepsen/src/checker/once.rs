//! What is to be in the queues once, or not at all: whatever tells the messages apart.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::hash::Hash;

use super::{Finding, Rules};
use crate::payload::OpKey;
use crate::reading::{Found, QueueKey, Reading};

/// What a message is counted as; none where it does not count.
pub(super) type Of<'a, K> = &'a dyn Fn(QueueKey, &Found) -> Option<K>;

/// A message's own key, of those that are known.
pub(super) fn key_of<V>(known: &HashMap<OpKey, V>) -> impl Fn(QueueKey, &Found) -> Option<OpKey> {
    |_, found| found.key.filter(|key| known.contains_key(key))
}

/// Adds what is wanted and missing on a replica. Where old messages expire, it is enough that somebody was given it.
pub(super) fn missing<K: Eq + Hash + Display>(
    finding: &mut Finding,
    wanted: impl Iterator<Item = (K, String)>,
    (replicas, consumed): (&[Reading], &[Reading]),
    of: Of<'_, K>,
    rules: Rules,
) {
    let held: Vec<(&str, HashSet<K>)> =
        replicas.iter().map(|reading| (reading.reader.as_str(), all(reading, of))).collect();
    let given: HashSet<K> = match rules.expires {
        true => consumed.iter().flat_map(|reading| all(reading, of)).collect(),
        false => HashSet::new(),
    };
    for (key, what) in wanted.filter(|(key, _)| !given.contains(key)) {
        let without = held.iter().filter(|(_, held)| !held.contains(&key));
        let without: Vec<&str> = without.map(|(name, _)| *name).collect();
        if !without.is_empty() {
            finding.add(|| format!("{key}, {what}, is missing on {}", without.join(", ")));
        }
    }
}

/// What is there more than once.
pub(super) fn doubled<K: Copy + Eq + Hash + Display>(replicas: &[Reading], of: Of<'_, K>) -> Finding {
    let mut finding = Finding::fatal("duplicate");
    for reading in replicas {
        let mut first: HashMap<K, u64> = HashMap::new();
        for (queue, found) in reading.messages() {
            let Some(key) = of(queue, found) else { continue };
            if let Some(before) = first.insert(key, found.offset) {
                let (who, offset) = (&reading.reader, found.offset);
                finding
                    .add(|| format!("{who}: {queue} offset {offset} holds {key}, as offset {before} does"));
            }
        }
    }
    finding
}

/// What is there for whoever was asked, and is not to be: each with the reason.
pub(super) fn present(gone: &HashMap<OpKey, &str>, readings: &[&Reading]) -> Finding {
    let mut finding = Finding::fatal("resurrected");
    for reading in readings {
        for (queue, found) in reading.messages() {
            let Some((key, why)) = found.key.and_then(|key| Some((key, gone.get(&key)?))) else {
                continue;
            };
            let (who, offset) = (&reading.reader, found.offset);
            finding.add(|| format!("{who}: {queue} offset {offset} holds {key}, {why}"));
        }
    }
    finding
}

fn all<K: Eq + Hash>(reading: &Reading, of: Of<'_, K>) -> HashSet<K> {
    reading.messages().filter_map(|(queue, found)| of(queue, found)).collect()
}
