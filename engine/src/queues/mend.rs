//! Mending damaged units: their messages are looked for in the log, between the nearest whole units before and after.
//!
//! Neighbours are often damaged together, so a whole stretch is looked for in one pass over that part of the log. The
//! log's records are verified when they are read; what is found there is what the units must say. No clock and no thread
//! is here: the caller reads the log part by part.

use std::ops::Range;
use std::sync::Arc;

use folio_protocol::message::{MessageView, peek};
use thiserror::Error;

use super::error::QueuesError;
use super::queue::Queue;
use super::unit::{Unit, UnitPlace};
use super::{ConsumeQueues, Inner};
use crate::log::{CommitLog, ReadError, Watcher};
use crate::record::Record;

/// Units mended in one pass over the log.
const STRETCH_MAX: u64 = 16_384;
/// Units looked at together when the ends of a stretch are searched.
const LOOK: u64 = 256;

/// Why the messages of damaged units were not found, yet.
#[derive(Debug, Error)]
pub enum MendError {
    /// Transient: the log cannot be read there now; it may be damaged itself, and mended first.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// Transient: it was not applied up to there, or the units before and after are not where they should be.
    #[error("the message of topic {topic} queue {queue} offset {offset} is not found in the log")]
    Missing {
        /// The topic.
        topic: Arc<str>,
        /// The queue.
        queue: u32,
        /// The offset.
        offset: u64,
    },
    /// The consume queues themselves failed.
    #[error(transparent)]
    Queues(#[from] QueuesError),
    /// The work was given up; the reason.
    #[error("{0}")]
    Stopped(String),
}

/// A stretch of damaged units whose messages are looked for.
pub struct Mending {
    queue: Arc<Queue>,
    offsets: Range<u64>,
    /// The entry to read next.
    index: u64,
    /// A later message of the queue, if one is known: the search ends there.
    end: Option<u64>,
    found: Vec<Unit>,
}

impl ConsumeQueues {
    /// The damaged units known; of a stretch of them perhaps only the first.
    pub fn damages(&self) -> Vec<UnitPlace> {
        self.inner.damages.places()
    }

    /// How many damaged units are known.
    pub fn damaged(&self) -> usize {
        self.inner.damages.count()
    }

    /// Calls `watcher` whenever damage is found from now on.
    pub fn on_damage(&self, watcher: Watcher) {
        self.inner.damages.watch(watcher);
    }

    /// Notes that units led to other messages than theirs.
    pub fn distrust(&self, topic: &str, queue: u32, offsets: Range<u64>) {
        let Some(queue) = self.inner.find(topic, queue) else { return };
        let (min, next) = queue.bounds();
        for offset in offsets.start.max(min)..offsets.end.min(next) {
            self.inner.damages.note(&queue, offset, true);
        }
    }

    /// The queue of a damaged unit; without one, the damage is forgotten.
    fn damaged_queue(&self, place: &UnitPlace) -> Option<Arc<Queue>> {
        let queue = self.inner.find(&place.topic, place.queue);
        if queue.is_none() {
            self.inner.damages.forget_place(place);
        }
        queue
    }
}

impl ConsumeQueues {
    /// The stretch of damaged units around a place; `None`, and forgotten, when the unit is whole, or gone.
    pub fn begin_mend(&self, log: &CommitLog, place: &UnitPlace) -> Result<Option<Mending>, MendError> {
        let Some(queue) = self.damaged_queue(place) else { return Ok(None) };
        let at = place.offset;
        let (min, next) = queue.bounds();
        if at < min || at >= next || self.inner.look(&queue, at..at + 1)?[0].is_some() {
            self.inner.damages.forget(&queue, at..at + 1);
            return Ok(None);
        }
        let (start, before) = self.inner.whole_before(&queue, min.max(at.saturating_sub(STRETCH_MAX)), at)?;
        let limit = next.min(start.saturating_add(STRETCH_MAX));
        let (end, after) = self.inner.whole_after(&queue, at, limit)?;
        // Whole neighbours in the wrong order cannot both be right.
        let ordered = before.zip(after).is_none_or(|(before, after)| before.position < after.position);
        let (before, after) = if ordered { (before, after) } else { (None, None) };
        let index = match before {
            Some(unit) => log.index_at(unit.position)?,
            None => log.state().first_index,
        };
        let end_position = after.map(|unit| unit.position);
        Ok(Some(Mending { queue, offsets: start..end, index, end: end_position, found: Vec::new() }))
    }

    /// Rewrites the units of a finished search. They are right for every reader when this returns, and durable after the
    /// next [`ConsumeQueues::sync`]. Returns how many there were.
    pub fn mend(&self, mending: Mending) -> Result<usize, MendError> {
        let Mending { queue, offsets, found, .. } = mending;
        let mut applier = self.inner.applier.lock();
        self.inner.check_poisoned()?;
        let current = self.inner.find(&queue.topic, queue.number);
        if current.is_some_and(|current| Arc::ptr_eq(&current, &queue)) {
            applier.rewrite(&queue, offsets.start, &found, &self.inner.files)?;
        }
        self.inner.damages.forget(&queue, offsets);
        Ok(found.len())
    }
}

impl Inner {
    /// Units that every copy agrees on and nobody distrusts; `None` for the others.
    fn look(&self, queue: &Queue, offsets: Range<u64>) -> Result<Vec<Option<Unit>>, QueuesError> {
        let mut units = queue.look(offsets.clone(), &self.files)?;
        for offset in self.damages.misleading(queue, offsets.clone()) {
            units[(offset - offsets.start) as usize] = None;
        }
        Ok(units)
    }

    /// Where the damaged stretch that reaches up to `at` starts, not below `min`, and the whole unit before it.
    fn whole_before(&self, queue: &Queue, min: u64, at: u64) -> Result<(u64, Option<Unit>), QueuesError> {
        let mut end = at;
        while end > min {
            let start = min.max(end.saturating_sub(LOOK));
            let units = self.look(queue, start..end)?;
            if let Some(last) = units.iter().rposition(Option::is_some) {
                return Ok((start + last as u64 + 1, units[last]));
            }
            end = start;
        }
        Ok((min, None))
    }

    /// Where the damaged stretch from `at` on ends, at `limit` at the latest, and the whole unit after it.
    fn whole_after(&self, queue: &Queue, at: u64, limit: u64) -> Result<(u64, Option<Unit>), QueuesError> {
        let mut start = at;
        while start < limit {
            let end = limit.min(start + LOOK);
            let units = self.look(queue, start..end)?;
            if let Some(first) = units.iter().position(Option::is_some) {
                return Ok((start + first as u64, units[first]));
            }
            start = end;
        }
        Ok((limit, None))
    }
}

impl Mending {
    /// The first unit of the stretch.
    pub(super) fn place(&self) -> UnitPlace {
        self.queue.place(self.offsets.start)
    }

    /// Reads about `bytes` more of the log, up to entry `upto`. True when all messages are found.
    pub fn step(&mut self, log: &CommitLog, upto: u64, bytes: usize) -> Result<bool, MendError> {
        let records = log.read(self.index, upto.saturating_add(1), bytes)?;
        for record in &records {
            if self.end.is_some_and(|end| record.position() > end) {
                return Err(self.missing());
            }
            if record.header.kind.has_messages() && self.take(record)? {
                return Ok(true);
            }
            self.index = record.header.index + 1;
        }
        if records.is_empty() { Err(self.missing()) } else { Ok(false) }
    }

    /// Takes the record's messages that are looked for. True when all are found.
    fn take(&mut self, record: &Record) -> Result<bool, MendError> {
        let (mut rest, mut position) = (record.messages(), record.messages_position());
        let malformed = |source| QueuesError::Message { position: record.position(), source };
        while !rest.is_empty() {
            let route = peek(rest).map_err(malformed)?;
            let wanted = route.queue_id == self.queue.number
                && route.topic == self.queue.topic.as_bytes()
                && self.offsets.contains(&route.queue_offset);
            if wanted {
                if route.queue_offset != self.offsets.start + self.found.len() as u64 {
                    return Err(self.missing());
                }
                let message = MessageView::parse(rest).map_err(malformed)?;
                let size = message.total_size() as u32;
                self.found.push(Unit { position, size, tags_code: message.tags_code() });
                if self.found.len() as u64 == self.offsets.end - self.offsets.start {
                    return Ok(true);
                }
            }
            position += route.total_size as u64;
            rest = &rest[route.total_size..];
        }
        Ok(false)
    }

    fn missing(&self) -> MendError {
        let UnitPlace { topic, queue, offset } =
            self.queue.place(self.offsets.start + self.found.len() as u64);
        MendError::Missing { topic, queue, offset }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::path::{Path, PathBuf};

    use super::super::UNIT_BYTES;
    use super::*;
    use crate::counters::QueueCounters;
    use crate::disk::RealDisk;
    use crate::log::{LogConfig, StampBase};
    use crate::record::{Draft, EntryId, RecordKind};
    use crate::sample::message;

    const PAGE: usize = 4096;
    /// Messages in each of the two queues.
    const COUNT: u64 = 900;

    struct Node {
        dir: tempfile::TempDir,
        log: CommitLog,
        queues: ConsumeQueues,
        expected: [Vec<Unit>; 2],
    }

    fn open(dir: &Path, at: &QueueCounters) -> ConsumeQueues {
        ConsumeQueues::open(Arc::new(RealDisk), dir, at, &QueueCounters::new()).unwrap()
    }

    impl Node {
        /// A log of several segments with two queues in it, and some messages of others between.
        fn new() -> Node {
            let dir = tempfile::tempdir().unwrap();
            let config = LogConfig { segment_bytes: 64 << 10, cache_bytes: 0, sync: true };
            let log = CommitLog::open(Arc::new(RealDisk), dir.path(), config, StampBase::default()).unwrap();
            let none = QueueCounters::new();
            let queues = open(dir.path(), &none);
            for index in 1..=COUNT {
                let moves = Draft::transition(&[b"move".to_vec()], 0).unwrap();
                let mut draft = if index % 3 == 0 { moves } else { Draft::new(RecordKind::Messages, 0) };
                let routes = [("t", 0), ("t", 1), ("other", 0)];
                for (topic, queue) in routes.into_iter().take(if index % 7 == 0 { 3 } else { 2 }) {
                    draft.payload_mut().extend_from_slice(&message(topic, queue, b"hello"));
                    draft.messages += 1;
                }
                let record = log.append(EntryId { term: 1, index }, draft).unwrap();
                queues.apply(&record, &mut Vec::new()).unwrap();
            }
            queues.sync().unwrap();
            let at = queues.counters();
            drop(queues);
            // Opened again, they have no unit in memory any more.
            let queues = open(dir.path(), &at);
            let expected = [0, 1].map(|queue| queues.units("t", queue, 0, 10_000).unwrap());
            assert!(expected.iter().all(|units| units.len() as u64 == COUNT));
            Node { dir, log, queues, expected }
        }

        fn file(&self, queue: u32) -> PathBuf {
            self.dir.path().join(format!("consumequeue/t/{queue}/00000000000000000000"))
        }

        fn write(&self, queue: u32, bytes: &[u8], at: usize) {
            let file = std::fs::OpenOptions::new().write(true).open(self.file(queue)).unwrap();
            file.write_all_at(bytes, at as u64).unwrap();
        }

        /// Mends until nothing is known to be damaged; returns how many passes over the log that took.
        fn mend(&self) -> usize {
            let mut passes = 0;
            while let Some(place) = self.queues.damages().first() {
                let Some(mut mending) = self.queues.begin_mend(&self.log, place).unwrap() else { continue };
                while !mending.step(&self.log, COUNT, 4096).unwrap() {}
                self.queues.mend(mending).unwrap();
                passes += 1;
            }
            passes
        }

        fn assert_whole(&self, why: &str) {
            for (queue, expected) in [0, 1].into_iter().zip(&self.expected) {
                assert_eq!(&self.queues.units("t", queue, 0, 10_000).unwrap(), expected, "{why}");
            }
            assert_eq!(self.queues.damages(), [], "{why}");
            let fresh = open(self.dir.path(), &self.queues.counters());
            assert_eq!(fresh.units("t", 0, 0, 10_000).unwrap(), self.expected[0], "{why}: on disk");
        }

        /// Reads every offset as consumers do: what is given must be right, queues.I5.
        fn read_all(&self, queue: u32) {
            let expected = &self.expected[queue as usize];
            for offset in 0..COUNT {
                if let Ok(units) = self.queues.units("t", queue, offset, 32) {
                    assert_eq!(units, expected[offset as usize..offset as usize + units.len()]);
                }
            }
        }
    }

    #[test]
    fn every_kind_of_damage_is_found_by_a_read_and_mended_from_the_log() {
        let node = Node::new();
        let whole = std::fs::read(node.file(0)).unwrap();
        let damage: [(&str, u64, usize, Vec<u8>); 7] = [
            ("a flipped bit", 216, 4321, vec![whole[4321] ^ 4]),
            ("the first unit", 0, 0, vec![0; UNIT_BYTES]),
            ("the last unit", COUNT - 1, whole.len() - 3, vec![0xff; 3]),
            ("a page of zeros", 205, PAGE, vec![0; PAGE]),
            ("a page of another place", 205, PAGE, whole[2 * PAGE..3 * PAGE].to_vec()),
            ("units one place too far", 100, 2000, whole[2020..6020].to_vec()),
            ("everything", 0, 0, vec![0; whole.len()]),
        ];
        for (why, offset, at, bytes) in damage {
            node.write(0, &bytes, at);
            let place = node.queues.inner.find("t", 0).unwrap().place(offset);
            node.queues.units("t", 0, place.offset, 1).unwrap_err();
            assert_eq!(node.queues.damages(), [place], "{why}");
            node.read_all(0);
            assert_eq!(node.mend(), 1, "{why}: a stretch takes one pass");
            node.assert_whole(why);
        }
    }

    #[test]
    fn a_cut_a_lost_and_a_foreign_file_are_mended() {
        let node = Node::new();
        let foreign = std::fs::read(node.file(1)).unwrap();
        node.write(0, &foreign, 0);
        node.read_all(0);
        node.mend();
        node.assert_whole("the units of another queue");
        std::fs::OpenOptions::new().write(true).open(node.file(0)).unwrap().set_len(5_005).unwrap();
        node.read_all(0);
        node.mend();
        node.assert_whole("a cut file");
        std::fs::remove_file(node.file(0)).unwrap();
        assert_eq!(node.queues.scrub(None, u64::MAX).next, None);
        node.mend();
        node.assert_whole("a removed file");
    }

    #[test]
    fn the_scrub_passes_over_every_queue_once_and_notes_what_is_damaged() {
        let node = Node::new();
        node.write(1, &[0; PAGE], PAGE);
        node.write(0, &[9], 777);
        let (mut next, mut steps, mut bytes) = (None, 0, 0);
        loop {
            let scrubbed = node.queues.scrub(next, 1);
            (next, steps, bytes) = (scrubbed.next, steps + 1, bytes + scrubbed.bytes);
            if next.is_none() {
                break;
            }
        }
        assert_eq!((steps, bytes), (3, 2 * COUNT * UNIT_BYTES as u64 + 4096));
        let found: Vec<_> =
            node.queues.damages().into_iter().map(|place| (place.queue, place.offset)).collect();
        assert_eq!(found, [(0, 38), (1, 205)]);
        assert_eq!(node.mend(), 2);
        node.assert_whole("found by the scrub");
    }

    #[test]
    fn a_whole_unit_that_leads_elsewhere_is_distrusted_and_found_again() {
        let node = Node::new();
        let queue = node.queues.inner.find("t", 0).unwrap();
        let wrong = [node.expected[1][5], node.expected[1][6]];
        let mut applier = node.queues.inner.applier.lock();
        applier.rewrite(&queue, 5, &wrong, &node.queues.inner.files).unwrap();
        drop(applier);
        assert_eq!(node.queues.units("t", 0, 5, 2).unwrap(), wrong);
        node.queues.distrust("t", 0, 5..7);
        assert_eq!(node.mend(), 1);
        node.assert_whole("distrusted units");
        node.queues.distrust("t", 9, 0..5);
        node.queues.distrust("t", 0, COUNT..COUNT + 5);
        assert_eq!(node.queues.damages(), []);
    }

    #[test]
    fn a_message_that_cannot_be_found_yet_leaves_the_damage_known() {
        let node = Node::new();
        node.write(0, &[0; PAGE], 0);
        node.read_all(0);
        let place = node.queues.damages().remove(0);
        let mut mending = node.queues.begin_mend(&node.log, &place).unwrap().unwrap();
        let missing = loop {
            match mending.step(&node.log, 50, 4096) {
                Ok(done) => assert!(!done),
                Err(error) => break error,
            }
        };
        assert!(matches!(missing, MendError::Missing { offset: 50, .. }), "{missing}");
        assert!(node.queues.damages().contains(&place));
        assert!(node.queues.units("t", 0, 0, 1).is_err());
        node.mend();
        node.assert_whole("later");
    }
}
