//! A seeded sequence of everything a log is asked for: append, submit, vote, truncate, purge, reopen.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use folio_engine::disk::Disk;
use folio_engine::disk::sim::{SeededChoice, SimDisk};
use folio_engine::{CommitLog, Draft, EntryId, LogConfig, QueueCounters, Record, RecordKind, StampBase};
use folio_protocol::message::{Messages, NewMessage};

use crate::model::{Entry, Model};

/// A few records fill a segment, so that a short run rolls often.
pub(crate) const CONFIG: LogConfig = LogConfig { segment_bytes: 4096, cache_bytes: 1024, sync: true };
/// Requests in one run.
const STEPS: usize = 60;

/// What a run did.
pub(crate) struct Run {
    pub(crate) model: Model,
    /// How often each kind of step was taken.
    pub(crate) counts: BTreeMap<&'static str, usize>,
}

/// One run on a disk; ends early when the log does.
pub(crate) fn run(disk: &SimDisk, seed: u64) -> Run {
    let kinds = ["append", "submit", "vote", "truncate", "purge", "reopen"];
    let counts = kinds.into_iter().map(|kind| (kind, 0)).collect();
    let mut run = Run { model: Model::new(), counts };
    if let Some(log) = open(disk, StampBase::default()) {
        let random = SeededChoice::new(seed);
        let mut worker = Worker { disk, log, random, term: 1, run: &mut run };
        let worked = (0..STEPS).try_for_each(|_| worker.step());
        let _ended = worked.and_then(|()| worker.wait());
        worker.log.close();
    }
    run
}

pub(crate) fn open(disk: &SimDisk, base: StampBase) -> Option<CommitLog> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    CommitLog::open(disk, Path::new("/"), CONFIG, base).ok()
}

struct Worker<'a> {
    disk: &'a SimDisk,
    log: CommitLog,
    random: SeededChoice,
    term: u64,
    run: &'a mut Run,
}

/// The log has stopped; the run ends.
pub(crate) struct Stopped;

impl Worker<'_> {
    fn step(&mut self) -> Result<(), Stopped> {
        let (kind, result) = match self.random.below(100) {
            0..55 => ("append", self.append()),
            55..72 => ("submit", self.submit()),
            72..82 => ("vote", self.vote()),
            82..90 => ("truncate", self.truncate()),
            90..96 => ("purge", self.purge()),
            _ => ("reopen", self.reopen()),
        };
        *self.run.counts.entry(kind).or_default() += 1;
        result
    }

    fn append(&mut self) -> Result<(), Stopped> {
        let last = self.run.model.now().last();
        let id = EntryId { term: self.term, index: last + 1 };
        let draft = draft(&mut self.random);
        let record = self.log.append(id, draft).map_err(|_| Stopped)?;
        let before = self.run.model.now().entries.get(&last).map(|entry| entry.base.counters.clone());
        let base = base_after(&record, before.unwrap_or_default());
        assert_eq!(self.log.counters(), base.counters, "log.I8: the stamps are dense");
        let entry = Arc::new(Entry { record, base });
        self.run.model.request(|state| drop(state.entries.insert(id.index, entry)));
        Ok(())
    }

    fn submit(&mut self) -> Result<(), Stopped> {
        self.log.submit(self.run.model.completion());
        Ok(())
    }

    fn vote(&mut self) -> Result<(), Stopped> {
        self.run.model.request(|state| state.vote += 1);
        let vote = self.run.model.now().vote;
        self.log.save_vote(&vote.to_be_bytes(), self.run.model.completion());
        Ok(())
    }

    /// Drops up to three entries; the next leader has another term.
    fn truncate(&mut self) -> Result<(), Stopped> {
        let now = self.run.model.now();
        let keep = now.last().saturating_sub(self.random.below(4)).max(now.purged);
        self.run.model.request(|state| drop(state.entries.split_off(&(keep + 1))));
        self.term += 1;
        self.log.truncate_after((keep > 0).then_some(keep), self.run.model.completion());
        self.powered()
    }

    /// Purges some of what is durable.
    fn purge(&mut self) -> Result<(), Stopped> {
        self.wait()?;
        let now = self.run.model.now();
        let upto = now.purged + self.random.below(now.last() - now.purged + 1);
        let Some(entry) = now.entries.get(&upto) else { return Ok(()) };
        let id = entry.record.id();
        self.run.model.request(|state| state.purged = upto);
        self.log.purge(id, self.run.model.completion());
        self.powered()
    }

    /// Without power the log may refuse to change, as it cannot read where; nothing is asked of it after that, since
    /// the model has the change.
    fn powered(&self) -> Result<(), Stopped> {
        if self.disk.is_off() { Err(Stopped) } else { Ok(()) }
    }

    fn reopen(&mut self) -> Result<(), Stopped> {
        self.wait()?;
        self.log.close();
        self.log = open(self.disk, self.run.model.base()).ok_or(Stopped)?;
        Ok(())
    }

    /// Waits until everything is durable.
    fn wait(&mut self) -> Result<(), Stopped> {
        wait(&self.log, self.run.model.completion())
    }
}

pub(crate) fn wait(log: &CommitLog, done: folio_engine::Completion) -> Result<(), Stopped> {
    let (told, tell) = mpsc::channel();
    log.submit(Box::new(move |outcome| {
        let good = outcome.is_ok();
        done(outcome);
        let _gone = told.send(good);
    }));
    if tell.recv() == Ok(true) { Ok(()) } else { Err(Stopped) }
}

/// Appends entries to an open log and waits until they are durable.
pub(crate) fn append_more(log: &CommitLog, seed: u64) -> Vec<Record> {
    let mut random = SeededChoice::new(seed);
    let last = log.state().last.unwrap_or_default();
    let ids = (1..3).map(|more| EntryId { term: last.term + 10, index: last.index + more });
    let records = ids.map(|id| log.append(id, draft(&mut random)).expect("the log takes more"));
    let records = records.collect();
    assert!(wait(log, Box::new(|_| {})).is_ok(), "the log stores more");
    records
}

fn draft(random: &mut SeededChoice) -> Draft {
    if random.below(8) == 0 {
        return Draft::new(RecordKind::Blank, 0);
    }
    let mut draft = match random.below(4) {
        0 => Draft::transition(&[vec![b'c'; random.below(300) as usize]], 0).expect("it is laid out well"),
        _ => Draft::new(RecordKind::Messages, 0),
    };
    draft.messages = 1 + random.below(3) as u32;
    for _ in 0..draft.messages {
        let topic = ["a", "b"][random.below(2) as usize];
        let body = vec![random.below(255) as u8 + 1; random.below(600) as usize];
        let message = message(topic, random.below(2) as u32, body.into());
        message.encode(draft.payload_mut()).expect("a message can be encoded");
    }
    draft
}

fn message(topic: &str, queue_id: u32, body: Bytes) -> NewMessage {
    let host = ([127, 0, 0, 1], 10911).into();
    NewMessage {
        topic: topic.into(),
        queue_id,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 1,
        born_host: host,
        store_timestamp: 2,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        properties: Bytes::new(),
    }
}

/// The state after a record, computed from its bytes: each message has the next offset of its queue.
pub(crate) fn base_after(record: &Record, mut counters: QueueCounters) -> StampBase {
    if record.header.kind.has_messages() {
        let start = record.messages_position();
        for message in Messages::new(record.messages()) {
            let (at, message) = message.expect("a whole message");
            let expected = counters.advance(message.topic(), message.queue_id(), 1);
            assert_eq!(message.queue_offset(), expected, "log.I8: the stamps are dense");
            assert_eq!(message.physical_offset(), start + at as u64, "log.I8: the position is stamped");
        }
    }
    StampBase { id: Some(record.id()), position: record.end(), prev_crc: record.header.crc, counters }
}
