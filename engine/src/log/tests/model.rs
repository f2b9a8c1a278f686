//! The log against a plain list, through any sequence of operations, reopenings and power cuts.
//!
//! A power cut comes behind up to three appends that nobody waited for: of those a prefix may be left, of everything
//! before nothing may be missing. Truncations and purges under way when the power fails are the business of `crash` and
//! of the program `power_cut`.

use proptest::prelude::*;

use super::*;
use crate::disk::sim::{SeededChoice, SimDisk};

#[derive(Debug, Clone)]
enum Op {
    Append {
        routes: Vec<(u8, u32)>,
        bytes: usize,
    },
    Flush,
    /// Drops that many of the last entries.
    Truncate(u64),
    /// Drops that many of the first entries.
    Purge(u64),
    Commit,
    Vote(u8),
    Read {
        from: u64,
        count: u64,
        bytes_max: usize,
    },
    /// From the state after that many percent of the entries.
    Reopen {
        percent: usize,
        cache_bytes: usize,
    },
    /// The power fails behind so many appends.
    PowerCut {
        unsynced: u64,
        seed: u64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (prop::collection::vec((0u8..3, 0u32..3), 0..4), 0usize..900)
            .prop_map(|(routes, bytes)| Op::Append { routes, bytes }),
        2 => Just(Op::Flush),
        2 => (0u64..8).prop_map(Op::Truncate),
        1 => (0u64..9).prop_map(Op::Purge),
        1 => Just(Op::Commit),
        1 => any::<u8>().prop_map(Op::Vote),
        3 => (0u64..20, 0u64..20, 0usize..4000)
            .prop_map(|(from, count, bytes_max)| Op::Read { from, count, bytes_max }),
        1 => (0usize..=100, prop_oneof![Just(0), Just(800), Just(1 << 20)])
            .prop_map(|(percent, cache_bytes)| Op::Reopen { percent, cache_bytes }),
        1 => (0u64..4, any::<u64>()).prop_map(|(unsynced, seed)| Op::PowerCut { unsynced, seed }),
    ]
}

struct Model {
    disk: SimDisk,
    log: CommitLog,
    start: StampBase,
    /// Each entry with the state after it.
    entries: Vec<(Bytes, StampBase)>,
    committed: Option<u64>,
    term: u64,
    vote: Option<u8>,
}

impl Model {
    fn new() -> Model {
        let disk = SimDisk::new();
        let log = Self::open(&disk, StampBase::default(), 500);
        let (start, entries) = Default::default();
        Model { disk, log, start, entries, committed: None, term: 1, vote: None }
    }

    fn open(disk: &SimDisk, base: StampBase, cache_bytes: usize) -> CommitLog {
        let config = LogConfig { segment_bytes: 2048, cache_bytes, sync: true };
        CommitLog::open(Arc::new(disk.clone()), Path::new("/"), config, base).unwrap()
    }

    fn last(&self) -> &StampBase {
        self.entries.last().map_or(&self.start, |entry| &entry.1)
    }

    fn next_index(&self) -> u64 {
        self.last().id.map_or(0, |id| id.index + 1)
    }

    fn append(&mut self, routes: &[(u8, u32)], bytes: usize) {
        let topics: Vec<_> =
            routes.iter().map(|(topic, queue)| (["a", "b", "c"][*topic as usize], *queue)).collect();
        let draft = if routes.is_empty() { command(bytes) } else { messages(&topics) };
        let id = EntryId { term: self.term, index: self.next_index() };
        let record = self.log.append(id, draft).unwrap();
        let mut counters = self.last().counters.clone();
        for (topic, queue) in topics {
            counters.advance(topic, queue, 1);
        }
        let (position, prev_crc) = (record.end(), record.header.crc);
        let after = StampBase { id: Some(id), position, prev_crc, counters };
        self.entries.push((record.frame().clone(), after));
    }

    fn truncate(&mut self, count: u64) {
        let keep = self.entries.len().saturating_sub(count as usize);
        let index =
            keep.checked_sub(1).map_or(self.start.id, |last| self.entries[last].1.id).map(|id| id.index);
        if index < self.committed {
            return;
        }
        self.entries.truncate(keep);
        self.log.truncate_after(index, Box::new(|outcome| outcome.unwrap()));
        self.term += 1;
    }

    fn purge(&mut self, count: u64) {
        let Some(upto) = (count as usize).min(self.entries.len()).checked_sub(1) else { return };
        self.start = self.entries[upto].1.clone();
        self.entries.drain(..=upto);
        let id = self.start.id.unwrap();
        self.log.purge(id, Box::new(|outcome| outcome.unwrap()));
        self.committed = self.committed.max(Some(id.index));
    }

    fn read(&self, from: u64, count: u64, bytes_max: usize) {
        let first = self.log.state().first_index;
        let (start, mut bytes) = (first + from, 0);
        let expected: Vec<_> = self
            .entries
            .iter()
            .skip(from as usize)
            .take(count as usize)
            .take_while(|(frame, _)| {
                let take = bytes == 0 || bytes < bytes_max;
                bytes += frame.len();
                take
            })
            .collect();
        let found = self.log.read(start, start + count, bytes_max).unwrap();
        assert_eq!(found.len(), expected.len());
        for (record, (frame, _)) in found.iter().zip(expected) {
            assert_eq!(record.frame(), frame);
            let part = self.log.bytes(record.position() + 5, frame.len() - 9).unwrap();
            assert_eq!(part, frame.slice(5..frame.len() - 4));
        }
    }

    fn reopen(&mut self, percent: usize, cache_bytes: usize) {
        self.log.close();
        let at = self.entries.len() * percent / 100;
        let base = at.checked_sub(1).map_or(&self.start, |at| &self.entries[at].1);
        self.committed = self.committed.max(base.id.map(|id| id.index));
        self.log = Self::open(&self.disk, base.clone(), cache_bytes);
        assert_eq!(self.log.vote().map(|vote| vote[0]), self.vote);
        assert_eq!(self.log.state().durable, self.last().id);
    }

    fn power_cut(&mut self, unsynced: u64, seed: u64) {
        flush(&self.log);
        let safe = self.entries.len();
        for at in 0..unsynced {
            self.append(&[((seed >> at) as u8 % 3, 0)], 100);
        }
        let left = self.disk.crash(&mut SeededChoice::new(seed));
        self.log.close();
        self.disk = left;
        self.log = Self::open(&self.disk, self.start.clone(), 500);
        let found = self.log.state().last;
        let kept = self.entries.iter().position(|entry| entry.1.id == found).map_or(0, |at| at + 1);
        assert!(kept >= safe, "log.I1: {found:?} is left of {safe} that were durable");
        self.entries.truncate(kept);
        assert_eq!(self.log.vote().map(|vote| vote[0]), self.vote, "log.I4");
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::PowerCut { unsynced, seed } => self.power_cut(unsynced, seed),
            Op::Append { routes, bytes } => self.append(&routes, bytes),
            Op::Flush => flush(&self.log),
            Op::Truncate(count) => self.truncate(count),
            Op::Purge(count) => self.purge(count),
            Op::Commit => {
                self.committed = self.last().id.map(|id| id.index).or(self.committed);
                if let Some(committed) = self.committed {
                    self.log.forget_undo(committed);
                }
            }
            Op::Vote(vote) => {
                self.vote = Some(vote);
                self.log.save_vote(&[vote], Box::new(|outcome| outcome.unwrap()));
            }
            Op::Read { from, count, bytes_max } => self.read(from, count, bytes_max),
            Op::Reopen { percent, cache_bytes } => self.reopen(percent, cache_bytes),
        }
        self.compare();
    }

    fn compare(&self) {
        let (state, last) = (self.log.state(), self.last());
        assert_eq!((state.last, state.next_position), (last.id, last.position));
        assert_eq!((state.purged, state.start_position), (self.start.id, self.start.position));
        assert!(state.durable_position <= state.next_position);
        assert_eq!(self.log.counters(), last.counters);
        if let Some(first) = self.entries.first() {
            assert_eq!(state.first_index, first.1.id.unwrap().index);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_a_list(ops in prop::collection::vec(op(), 1..60)) {
        let mut model = Model::new();
        for op in ops {
            model.apply(op);
        }
        model.reopen(0, 0);
        model.read(0, 1000, usize::MAX);
        model.compare();
    }
}
