use std::sync::Arc;

use super::*;
use crate::derived::conformance::{FIRST_STORE_MS, STORE_STEP_MS, Story, Subject, check, dir};
use crate::disk::Disk;
use crate::disk::sim::SimDisk;
use crate::keys::memory::Limits;
use crate::keys::{KeysError, has_key};
use folio_protocol::message::MessageView;

const SEGMENT_BYTES: u64 = 16 << 10;
const ALL: std::ops::RangeInclusive<i64> = 0..=i64::MAX;

struct Keys {
    limits: Limits,
    sync_every: usize,
}

impl Subject for Keys {
    type Structure = DerivedKeys;

    fn open(&self, disk: Arc<dyn Disk>, _: &StampBase, begin: &StampBase) -> (DerivedKeys, LogPoint) {
        let begin = LogPoint::from(begin).next_index();
        let (keys, at) = KeyIndex::open_with(disk, dir(), SEGMENT_BYTES, begin, self.limits).unwrap();
        (DerivedKeys::new(keys), at)
    }

    fn dump(&self, structure: &DerivedKeys, _: &Story, begin: &StampBase) -> Vec<String> {
        let mut dump = Vec::new();
        let keys = (0..7).map(|n| format!("k{n}"));
        let keys = keys.chain((0..200).flat_map(|n| [format!("only{n}"), format!("U{n}")]));
        for key in keys {
            for topic in ["orders", "bills"] {
                let found = structure.keys.positions(topic, &key, u64::MAX, 1000, &ALL).unwrap();
                let found = found.into_iter().filter(|position| *position >= begin.position);
                dump.extend(found.map(|position| format!("{topic} {key} {position}")));
            }
        }
        dump
    }

    fn sync_every(&self) -> usize {
        self.sync_every
    }
}

#[test]
fn the_key_index_is_a_derived_structure() {
    check(&Keys { limits: Limits { wanted: 1 << 20, held: 1 << 20 }, sync_every: 20 });
}

/// Syncs because memory is full, and runs enough to be merged within a segment.
#[test]
fn keys_i3_a_small_memory_is_enough() {
    check(&Keys { limits: Limits { wanted: 20, held: 30 }, sync_every: 60 });
}

fn filled(story: &Story) -> (SimDisk, DerivedKeys) {
    let disk = SimDisk::new();
    let keys = Keys { limits: Limits { wanted: 1 << 20, held: 1 << 20 }, sync_every: 1 };
    let (structure, _) = keys.open(Arc::new(disk.clone()), &story.bases[0], &story.bases[0]);
    for record in &story.records {
        structure.apply(record, &mut Vec::new()).unwrap();
        structure.sync().unwrap();
    }
    (disk, structure)
}

/// Every message of the story, with the position that it is stored at.
fn messages(story: &Story) -> Vec<(u64, bytes::Bytes)> {
    let mut all = Vec::new();
    for record in story.records.iter().filter(|record| record.header.kind.has_messages()) {
        let messages = bytes::Bytes::copy_from_slice(record.messages());
        for message in folio_protocol::message::Messages::new(&messages) {
            let (at, message) = message.unwrap();
            let end = at + message.total_size();
            all.push((record.messages_position() + at as u64, messages.slice(at..end)));
        }
    }
    all
}

#[test]
fn a_look_up_gives_the_newest_first_and_goes_on_before_the_last() {
    let story = Story::new(120);
    let (_, structure) = filled(&story);
    let messages = messages(&story);
    let of = |key: &str| -> Vec<u64> {
        let has = |bytes: &bytes::Bytes| has_key(&MessageView::parse(bytes).unwrap(), "orders", key);
        messages.iter().rev().filter(|(_, bytes)| has(bytes)).map(|(position, _)| *position).collect()
    };
    let expected = of("k3");
    assert!(expected.len() > 10);
    let look = |before, max| structure.keys.positions("orders", "k3", before, max, &ALL).unwrap();
    assert_eq!(look(u64::MAX, 1000), expected);
    assert_eq!(look(u64::MAX, 3), expected[..3]);
    assert_eq!(look(expected[2], 4), expected[3..7]);
    assert!(look(*expected.last().unwrap(), 9).is_empty());
    assert!(structure.keys.positions("orders", "k", u64::MAX, 9, &ALL).unwrap().is_empty());
    assert_eq!(of("U5"), structure.keys.positions("orders", "U5", u64::MAX, 9, &ALL).unwrap());
    story.log.close();
}

#[test]
fn runs_whose_store_times_do_not_fit_are_left_out() {
    let story = Story::new(120);
    let (disk, structure) = filled(&story);
    let all = structure.keys.positions("orders", "k3", u64::MAX, 1000, &ALL).unwrap();
    let early = FIRST_STORE_MS..=FIRST_STORE_MS + 20 * STORE_STEP_MS;
    let reads = disk.reads();
    let found = structure.keys.positions("orders", "k3", u64::MAX, 1000, &early).unwrap();
    let few = disk.reads() - reads;
    assert!(found.len() < all.len() && all.ends_with(&found) && !found.is_empty());
    structure.keys.positions("orders", "k3", u64::MAX, 1000, &ALL).unwrap();
    assert!(few * 2 < disk.reads() - reads, "{few} reads");
    story.log.close();
}

#[test]
fn runs_of_a_full_segment_become_one_and_others_stay_few() {
    let story = Story::new(130);
    let (_, structure) = filled(&story);
    let runs = structure.keys.inner.runs.read().clone();
    let last = runs.last().unwrap().header.segment;
    assert!(last >= 2, "the story has some segments");
    for segment in 0..last {
        assert_eq!(runs.iter().filter(|run| run.header.segment == segment).count(), 1);
    }
    assert!(runs.len() < 130 / 3);
    // With the segment its run goes, and nothing else.
    let start = runs[0].id().1 as usize;
    structure.trim(&story.bases[start]).unwrap();
    assert_eq!(structure.keys.size().0, runs.len() - 1);
    story.log.close();
}

/// One key in every message: more blocks than one hold nothing else.
#[test]
fn a_key_of_many_messages_is_found_across_blocks() {
    use crate::keys::entry::Entry;
    use crate::keys::header::Header;
    use crate::keys::memory::Times;
    use crate::keys::run::Run;

    let disk = SimDisk::new();
    disk.create_dir_all(dir()).unwrap();
    let to = LogPoint { id: Some(crate::record::EntryId { term: 1, index: 9 }), position: 9, crc: 0 };
    let times = Times { first: 0, last: 0 };
    let header = Header { segment: 0, from: LogPoint::default(), to, times, entries: 0 };
    let around = (0..1000).map(|n| Entry { hash: n << 54, position: n });
    let hot = (0..2000).map(|n| Entry { hash: 77 << 54 | 1, position: 2 * n });
    let mut entries: Vec<Entry> = around.chain(hot).collect();
    entries.sort_unstable();
    let run = Run::write(&disk, dir(), header, entries.iter().copied().map(Ok)).unwrap();
    let reader = run.reader(&disk).unwrap();
    let look = |hash, before, max| {
        let mut found = Vec::new();
        reader.look(hash, before, max, &mut found).unwrap();
        found
    };
    let expected: Vec<u64> = (0..2000).rev().map(|n| 2 * n).collect();
    assert_eq!(look(77 << 54 | 1, u64::MAX, 10_000), expected);
    assert_eq!(look(77 << 54 | 1, 2001, 700), expected[999..1699]);
    for n in 0..1000 {
        assert_eq!(look(n << 54, u64::MAX, 10), [n]);
        assert!(look(n << 54 | 2, u64::MAX, 10).is_empty());
    }
    assert!(look(u64::MAX, u64::MAX, 10).is_empty());
    // A damaged block is an error, not a smaller answer.
    disk.flip_bit(&run.path, 4 * 4096 + 100, 1).unwrap();
    let found = reader.look(77 << 54 | 1, u64::MAX, 10_000, &mut Vec::new());
    assert!(matches!(found, Err(KeysError::Damaged { block: 4, .. })), "{found:?}");
}
