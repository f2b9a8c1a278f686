//! The one worker that writes the log: it takes all that waits, writes each contiguous run with one `pwritev`, syncs
//! once, moves the durable watermark and calls the completions in order. There is no artificial delay: a group is what
//! came while the group before was being synced.
//!
//! A failed write or sync poisons the log (`log.I3`): nothing is tried again, since the page cache can no longer be
//! believed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::error::{Refusal, WriteError};
use super::mark::Mark;
use super::prepare::Preparer;
use super::queue::{Append, Change, Completion, Group};
use super::remove::Remover;
use super::segment::base_of;
use super::shared::Shared;
use super::slots::Slots;
use super::workers::{Worker, Workers};
use super::zero_fill::ZeroFill;
use crate::disk::{DiskFile, PAGE_BYTES};
use crate::planted;
use crate::record::{EntryId, Record};

/// How often a changed durable mark is made durable itself: what a crash loses of it only weakens the telling of rot
/// from a torn tail, for that long.
const MARK_SYNC_EVERY: Duration = Duration::from_secs(1);
/// How long acknowledged bytes stay unsynced with asynchronous flushing; RocketMQ's default `flushIntervalCommitLog`.
const ASYNC_SYNC_EVERY: Duration = Duration::from_millis(500);

/// The writer's own state; see the module.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) preparer: Arc<Preparer>,
    pub(super) remover: Arc<Remover>,
    /// Every segment file of the log, by its first position.
    pub(super) files: BTreeMap<u64, Arc<dyn DiskFile>>,
    /// The segment that the disk had no room for when the log was opened; what is in `files` of it is only read.
    pub(super) unreserved: Option<u64>,
    /// Segments written since the last sync.
    pub(super) dirty: BTreeSet<u64>,
    /// Where the written part ends: what is beyond is zero.
    pub(super) end: u64,
    pub(super) zero_fill: ZeroFill,
    pub(super) last: Option<EntryId>,
    pub(super) mark: Mark,
    pub(super) votes: Slots,
    pub(super) workers: Arc<dyn Workers>,
    /// By the clock of `workers`.
    pub(super) mark_synced: Duration,
    pub(super) data_synced: Duration,
    /// A group that waits for a segment file.
    pub(super) pending: Option<Group>,
}

impl Worker for Writer {
    fn run(&mut self) {
        loop {
            let patience = self.patience();
            let group = self.pending.take().unwrap_or_else(|| self.shared.queue.take(patience));
            if !self.work(group) {
                return;
            }
        }
    }

    fn step(&mut self) -> bool {
        let group = self.pending.take().unwrap_or_else(|| self.shared.queue.take(Duration::ZERO));
        self.work(group)
    }
}

impl Writer {
    /// Does one group and what is due by time; false when it closed the log.
    fn work(&mut self, mut group: Group) -> bool {
        // A failure shows in the group's completions.
        let reserved = self.guarded(|writer| writer.reserve(&group.appends));
        if let Some(placed) = reserved.ok().filter(|placed| *placed < group.appends.len()) {
            let first = group.take_first(placed);
            self.step_group(first);
            self.purge_early(&mut group);
            self.pending = self.reset_early(group);
            self.housekeeping();
            return true;
        }
        if self.step_group(group) {
            self.preparer.stop();
            self.remover.stop();
            return false;
        }
        self.housekeeping();
        true
    }

    /// Does the purges that are asked for while a group waits for room: they may be what makes it (`log.I11`).
    fn purge_early(&mut self, group: &mut Group) {
        let end = self.end;
        let mut purges: Vec<_> =
            group.change.take_if(|(change, _)| change.purges_before(end)).into_iter().collect();
        if group.change.as_ref().is_none_or(|(change, _)| change.lets_purges_pass()) {
            purges.extend(self.shared.queue.take_purges(end));
        }
        for (change, done) in purges {
            self.change(change, done);
        }
    }

    /// Does a reset that is asked for while a group waits for room: it makes void what waits, and gives the room of all else.
    /// Only then are the records' completions called: the snapshot that replaces the log stands for them (`log.I13`). A vote in
    /// between says that they have to be stored first; then the group is given back.
    fn reset_early(&mut self, mut group: Group) -> Option<Group> {
        if group.change.is_none() {
            self.shared.queue.take_to_reset(&mut group);
        }
        let is_reset = matches!(group.change, Some((Change::Reset { .. }, _)));
        let Some((change, done)) = group.change.take_if(|_| is_reset) else { return Some(group) };
        let outcome = self.guarded(|writer| writer.sync_data().and_then(|()| writer.apply(change)));
        for awaiting in group.completions {
            (awaiting.done)(outcome.clone().and(awaiting.refused.map_or(Ok(()), Err)));
        }
        done(outcome);
        None
    }

    fn patience(&self) -> Duration {
        if !self.dirty.is_empty() {
            ASYNC_SYNC_EVERY.saturating_sub(self.since(self.data_synced)).max(Duration::from_millis(1))
        } else if self.mark.is_dirty() {
            MARK_SYNC_EVERY
        } else {
            Duration::from_secs(3600)
        }
    }

    fn since(&self, moment: Duration) -> Duration {
        self.workers.now().saturating_sub(moment)
    }

    /// True when the group closed the log.
    fn step_group(&mut self, mut group: Group) -> bool {
        if planted::is("vote-before-log")
            && let Some((vote, done)) = group.change.take_if(|(change, _)| matches!(change, Change::Vote(_)))
        {
            self.change(vote, done);
        }
        let written = self.guarded(|writer| writer.write(&group.appends));
        for awaiting in group.completions {
            let outcome = written.clone().and(awaiting.refused.map_or(Ok(()), Err));
            (awaiting.done)(outcome);
        }
        let Some((change, done)) = group.change else { return false };
        let closing = matches!(change, Change::Close);
        self.change(change, done);
        closing
    }

    /// Runs a write unless the log is poisoned, and poisons it when the write fails.
    pub(super) fn guarded<T>(
        &mut self,
        write: impl FnOnce(&mut Writer) -> io::Result<T>,
    ) -> Result<T, WriteError> {
        if let Some(reason) = self.shared.poisoned() {
            return Err(WriteError::Poisoned(reason));
        }
        write(self).map_err(|error| WriteError::Poisoned(self.shared.poison(&error)))
    }

    fn write(&mut self, appends: &[Append]) -> io::Result<()> {
        let Some(last) = appends.last() else { return Ok(()) };
        self.zero_fill.note(appends.iter().map(|append| append.record.frame().len()).sum());
        let runs = appends
            .chunk_by(|a, b| a.record.end() == b.record.position() && a.segment.base == b.segment.base);
        for run in runs {
            self.write_run(run)?;
        }
        (self.end, self.last) = (last.record.end(), Some(last.record.id()));
        self.shared.view.lock().written = last.sequence;
        if self.shared.config.sync && !planted::is("ack-before-sync") {
            self.sync_data()?;
        }
        self.publish(last.epoch);
        Ok(())
    }

    fn write_run(&mut self, run: &[Append]) -> io::Result<()> {
        let Some(first) = run.first() else { return Ok(()) };
        let base = first.segment.base;
        let Some(file) = self.files.get(&base).cloned() else {
            return Err(io::Error::other(format!("segment {base} has no file")));
        };
        let mut slices: Vec<IoSlice<'_>> =
            run.iter().map(|append| IoSlice::new(append.record.frame())).collect();
        let end = run.last().map_or(base, |last| last.record.end());
        for zeroes in self.zero_fill.zeroes(end, base + self.shared.config.segment_bytes) {
            slices.push(IoSlice::new(zeroes));
        }
        if self.dirty.is_empty() {
            self.data_synced = self.workers.now();
        }
        self.dirty.insert(base);
        file.write_all_at(&slices, first.record.position() - base)?;
        for append in run {
            append.segment.set_file(&file);
        }
        Ok(())
    }

    /// Has a file for every segment that the appends go to, and returns for how many of them; fewer than there are when a
    /// file is not ready. Going on to a new one asks for the one after it.
    fn reserve(&mut self, appends: &[Append]) -> io::Result<usize> {
        let mut placed = 0;
        for same in appends.chunk_by(|a, b| a.segment.base == b.segment.base) {
            let base = same.first().map_or(0, |append| append.segment.base);
            placed += same.len();
            if self.files.contains_key(&base) && self.unreserved != Some(base) {
                continue;
            }
            let Some(file) = self.preparer.take(base)? else { return Ok(placed - same.len()) };
            self.files.insert(base, file);
            self.unreserved = self.unreserved.filter(|unreserved| *unreserved != base);
            self.preparer.want(base + self.shared.config.segment_bytes);
            self.mark.sync()?;
        }
        Ok(placed)
    }

    /// Makes everything written durable, and notes it in the mark.
    pub(super) fn sync_data(&mut self) -> io::Result<()> {
        let begun = self.workers.now();
        while let Some(base) = self.dirty.pop_first() {
            if let Some(file) = self.files.get(&base) {
                file.sync_data()?;
            }
        }
        self.data_synced = self.workers.now();
        let took = self.data_synced.saturating_sub(begun);
        self.shared.synced_us.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
        self.mark.raise(self.end)
    }

    /// Moves the watermark readers see, before any completion says the same. If the log was truncated meanwhile, as far as
    /// what was kept; the rest is published when the truncation is done.
    fn publish(&self, epoch: u64) {
        let mut view = self.shared.view.lock();
        if view.epoch == epoch {
            view.cut = None;
            assert!(view.durable_end <= self.end, "log.I1: the durable watermark never goes back");
        }
        let written = (self.end, self.last);
        let (end, last) = view.cut.filter(|cut| cut.0 < self.end).unwrap_or(written);
        assert!(end <= view.end, "log.I1: durable <= written");
        if end > view.durable_end || view.epoch == epoch {
            (view.durable_end, view.durable) = (end, last);
        }
    }

    fn change(&mut self, change: Change, done: Completion) {
        match &change {
            Change::Mend(record) => return done(self.mend(record)),
            Change::Blank(bad) => return done(self.blank(bad)),
            _ => {}
        }
        let outcome = self.guarded(|writer| {
            writer.sync_data()?;
            writer.apply(change)
        });
        done(outcome);
    }

    fn apply(&mut self, change: Change) -> io::Result<()> {
        match change {
            Change::Vote(vote) => {
                // slots.I2: a forgotten vote could be given twice in one term.
                self.votes.write_both(&vote)?;
                *self.shared.vote.lock() = Some(vote);
            }
            Change::Truncate { end, last, epoch } => {
                self.truncate(end, last)?;
                self.publish(epoch);
            }
            Change::Purge { start, keep, epoch } => {
                self.purge(start, keep)?;
                self.publish(epoch);
            }
            Change::Reset { start, epoch } => {
                self.reset(start)?;
                self.publish(epoch);
            }
            Change::Mend(_) | Change::Blank(_) => {
                return Err(io::Error::other("a repair has a way of its own"));
            }
            Change::Close => self.mark.sync()?,
        }
        Ok(())
    }

    /// Replaces a damaged record, with those beside it that wait for that. Torn by a crash it is damaged again, and found
    /// again.
    fn mend(&mut self, record: &Record) -> Result<(), WriteError> {
        let (base, segment_bytes) = (self.base_of(record.position()), self.shared.config.segment_bytes);
        // Purged or truncated meanwhile: nothing to mend any more.
        let Some(file) = self.files.get(&base).filter(|_| record.end() <= self.end).cloned() else {
            self.shared.damages.forget(record.position());
            return Ok(());
        };
        self.shared.damages.keep(record);
        let run = self.shared.damages.side_by_side(record, segment_bytes);
        // What else is not synced is the log's own, of which no failure may pass unseen. After it nothing but the repair is.
        self.guarded(Writer::sync_data)?;
        // damage.I3: what the repair cannot store was not stored before. The copy stands in for it.
        self.overwrite(&*file, &run).map_err(|error| Refusal::Io(error.to_string()))?;
        run.iter().for_each(|mended| self.shared.damages.forget(mended.position()));
        Ok(())
    }

    /// Writes records that lie side by side over what is stored, durably, and reads them back from the device.
    fn overwrite(&self, file: &dyn DiskFile, run: &[Record]) -> io::Result<()> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
        let filler = self.filler_behind(last);
        let frames = run.iter().map(|record| IoSlice::new(record.frame()));
        let slices: Vec<IoSlice<'_>> = frames.chain([IoSlice::new(&filler)]).collect();
        let offset = first.position() - self.base_of(first.position());
        file.write_all_at(&slices, offset)?;
        file.sync_data()?;
        // damage.I4: a page that other damage has a part in stays lost, though a part of it was written.
        let mut stored = vec![0; (last.end() - first.position()) as usize];
        let read = file.read_stored_at(&mut stored, offset);
        let read = read.map_err(|error| io::Error::other(format!("written, and not read back: {error}")))?;
        let mut rest = &stored[..read];
        let same = run.iter().all(|record| rest.split_off(..record.frame().len()) == Some(record.frame()));
        if same { Ok(()) } else { Err(io::Error::other("written, and something else was read back")) }
    }

    /// The rest of the page behind the last record of a segment, which is zero: where that page is lost, it can only be
    /// written as a whole.
    fn filler_behind(&self, last: &Record) -> Vec<u8> {
        let is_last = {
            let view = self.shared.view.lock();
            view.segments.iter().any(|live| live.first.0 == last.header.index + 1)
        };
        let end = last.end() - self.base_of(last.position());
        let to = end.next_multiple_of(PAGE_BYTES).min(self.shared.config.segment_bytes);
        if is_last { vec![0; (to - end) as usize] } else { Vec::new() }
    }

    /// What is due by time.
    fn housekeeping(&mut self) {
        let data_due = !self.dirty.is_empty() && self.since(self.data_synced) >= ASYNC_SYNC_EVERY;
        let mark_due = self.mark.is_dirty() && self.since(self.mark_synced) >= MARK_SYNC_EVERY;
        if !data_due && !mark_due {
            return;
        }
        // A failure shows in the state of the log, and in every later completion.
        let _ = self.guarded(|writer| {
            if data_due {
                writer.sync_data()?;
            }
            if mark_due {
                writer.mark_synced = writer.workers.now();
                writer.mark.sync()?;
            }
            Ok(())
        });
    }

    /// The segment a position lies in.
    pub(super) fn base_of(&self, position: u64) -> u64 {
        base_of(position, self.shared.config.segment_bytes)
    }
}
