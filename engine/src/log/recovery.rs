//! Opening: finds where the log ends, tells a torn tail from rot, and cuts the tail off.
//!
//! Every record from the checkpoint (`base`) to the tail is read and verified: crcs, the chain, term and index, stamps.
//! Of the segments before only the first header is looked at. Nothing is changed before the verdict; when it is rot,
//! nothing is changed at all.
//!
//! The verdict. The log ends where no record continues the chain. If the durable mark lies beyond that end, records this
//! node has acknowledged are missing: rot (`log.I5`). Otherwise what follows was never acknowledged: a torn tail; the
//! rest of the segment is zeroed and later segments are removed, durably, before anything is appended (`log.I7`). Bytes that
//! the device has lost may have been acknowledged wherever the mark is, which lags: they are rot. A record that a newer build
//! wrote, with a right checksum, is neither: this build refuses to open the log (`log.I5`).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::{LogConfig, OnRot};
use super::error::{IoContext, OpenError};
use super::mark::{Mark, Start};
use super::remove::Leaving;
use super::segment::{Segment, base_of, base_of_path, path_of};
use super::stamp_base::StampBase;
use super::view::Live;
use crate::disk::{Disk, DiskFile, OpenMode, is_lost, read_again_if_lost};
use crate::record::{EntryId, HEADER_BYTES, Record, RecordError, RecordHeader};
use crate::stamp::Stamper;

pub(super) type Files = BTreeMap<u64, Arc<dyn DiskFile>>;

/// What recovery found.
pub(super) struct Recovered {
    pub(super) files: Files,
    pub(super) segments: Vec<Live>,
    /// Files below the start, left over from purges.
    pub(super) leaving: Vec<Leaving>,
    pub(super) stamper: Stamper,
    pub(super) walk: Walk,
    /// The segment that the next record goes to, when the disk has no room for it: its file is missing, or has holes.
    pub(super) unreserved: Option<u64>,
}

/// A place between two records.
#[derive(Debug, Clone, Copy)]
pub(super) struct Walk {
    pub(super) end: u64,
    pub(super) prev_crc: u32,
    pub(super) last: Option<EntryId>,
}

impl Walk {
    fn past(&mut self, header: &RecordHeader) {
        *self = Walk { end: header.end(), prev_crc: header.crc, last: Some(header.id()) };
    }
}

/// Why no record continues the log.
struct Stop {
    position: u64,
    reason: String,
    /// The disk failed, so whether one does is unknown: nothing may be cut.
    failure: Option<io::Error>,
    /// The device has lost what is there.
    lost: bool,
}

impl Stop {
    fn new(position: u64, reason: impl ToString) -> Stop {
        Stop { position, reason: reason.to_string(), failure: None, lost: false }
    }

    /// Of bytes that are no record here. What a newer build wrote is whole: it is neither a torn tail nor rot, and nothing is cut.
    fn record(position: u64, reason: RecordError) -> Stop {
        let failure = reason.is_newer().then(|| {
            let text = format!("the record at position {position} was written by a newer build ({reason}): install that build");
            io::Error::new(io::ErrorKind::Unsupported, text)
        });
        Stop { failure, ..Stop::new(position, reason) }
    }

    /// Of a read.
    fn read(position: u64, error: io::Error) -> Stop {
        let (reason, lost) = (error.to_string(), is_lost(&error));
        Stop { position, reason, failure: (!lost).then_some(error), lost }
    }
}

pub(super) struct Recovery<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) directory: &'a Path,
    pub(super) config: LogConfig,
    pub(super) start: Start,
    pub(super) durable: u64,
    pub(super) files: Files,
    pub(super) segments: Vec<Live>,
    on_rot: OnRot,
}

impl<'a> Recovery<'a> {
    /// Opens the segment files that are there.
    pub(super) fn new(
        disk: &'a dyn Disk,
        directory: &'a Path,
        config: LogConfig,
        start: Start,
        mark: &Mark,
        on_rot: OnRot,
    ) -> Result<Recovery<'a>, OpenError> {
        let durable = mark.position();
        let (files, segments) = (Files::new(), Vec::new());
        let mut recovery = Recovery { disk, directory, config, start, durable, files, segments, on_rot };
        for path in disk.list(directory).context("list", directory)? {
            let Some(base) = base_of_path(&path) else { continue };
            let file = disk.open(&path, OpenMode::ReadWrite).context("open", &path)?;
            let length = file.len().context("measure", &path)?;
            let expected = recovery.config.segment_bytes;
            if base % expected != 0 || length > expected {
                return Err(OpenError::SegmentSize { file: path, length, expected });
            }
            recovery.files.insert(base, file);
        }
        Ok(recovery)
    }

    /// Reads the log from `base` to its tail and repairs the tail.
    pub(super) fn run(mut self, base: StampBase, mark: &mut Mark) -> Result<Recovered, OpenError> {
        self.prefetch(&base);
        let mut walk = self.reach(&base)?;
        let mut stamper = Stamper::new(base.counters, base.id.map(|id| id.index));
        let (scanned_from, mut records) = (walk.end, 0u64);
        let stop = loop {
            match self.next(&walk).and_then(|header| self.record(&header)) {
                Err(stop) => break stop,
                Ok(record) => {
                    self.restamp(&mut stamper, &record)?;
                    self.note(&record.header);
                    walk.past(&record.header);
                    records += 1;
                }
            }
        };
        self.refuse_rot(&walk, stop)?;
        if self.on_rot == OnRot::Cut {
            self.keep(walk.end)?;
        }
        // Before anything goes: a crash in between must leave a torn tail, not rot once more.
        mark.lower(walk.end).context("lower the durable mark of", self.directory)?;
        let leaving = self.leaving(walk.end);
        let (cut_bytes, unreserved) = self.cut(walk.end)?;
        tracing::info!(
            directory = %self.directory.display(),
            start = self.start.position,
            scanned_from,
            records,
            end = walk.end,
            last = ?walk.last,
            durable = self.durable,
            cut_bytes,
            "commit log opened"
        );
        Ok(Recovered { files: self.files, segments: self.segments, leaving, stamper, walk, unreserved })
    }

    /// Has the acknowledged part of what is about to be read brought into memory.
    fn prefetch(&self, base: &StampBase) {
        for (&start, file) in self.files.range(self.base_of(base.position)..) {
            let from = base.position.max(start);
            let end = self.durable.min(start + self.config.segment_bytes);
            file.prefetch(from - start, end.saturating_sub(from));
        }
    }

    pub(super) fn base_of(&self, position: u64) -> u64 {
        base_of(position, self.config.segment_bytes)
    }

    fn path(&self, position: u64) -> PathBuf {
        path_of(self.directory, self.base_of(position))
    }

    /// Walks over headers up to `base`, to be sure that it is a place between two records of this very log.
    fn reach(&mut self, base: &StampBase) -> Result<Walk, OpenError> {
        let start = self.start;
        if base.position < start.position {
            return Err(OpenError::BaseBelowStart { base: base.position, start: start.position });
        }
        let mut walk = Walk { end: start.position, prev_crc: start.prev_crc, last: start.id };
        if self.is_at(&walk, base) {
            return Ok(walk);
        }
        if base.position > start.position {
            walk = self.skip_segments(walk, base.position)?;
        }
        while walk.end < base.position && !self.is_at(&walk, base) {
            match self.next(&walk) {
                Ok(header) => {
                    self.note(&header);
                    walk.past(&header);
                }
                Err(stop) => {
                    let tail = walk.end;
                    self.refuse_rot(&walk, stop)?;
                    return Err(OpenError::BaseBeyondTail { base: base.position, tail });
                }
            }
        }
        if !self.is_at(&walk, base) {
            let reason = format!("the log has entry {:?} ending at {}", walk.last, walk.end);
            return Err(OpenError::BaseMismatch { file: self.path(walk.end), base: base.position, reason });
        }
        Ok(walk)
    }

    /// Whether `base` was taken right here: at the end of the last record, or, for a snapshot taken at the start of a
    /// segment, behind the filler that follows that record.
    fn is_at(&self, walk: &Walk, base: &StampBase) -> bool {
        let here = base.position == walk.end
            || base.position == walk.end.next_multiple_of(self.config.segment_bytes.max(1));
        here && (walk.last, walk.prev_crc) == (base.id, base.prev_crc)
    }

    /// Goes from the start to the first record of the segment that ends at `position` or holds it, looking at first
    /// headers only.
    fn skip_segments(&mut self, walk: Walk, position: u64) -> Result<Walk, OpenError> {
        let target = self.base_of(position - 1);
        let first = match self.next(&walk) {
            Ok(header) => header,
            Err(stop) => {
                self.refuse_rot(&walk, stop)?;
                return Err(OpenError::BaseBeyondTail { base: position, tail: walk.end });
            }
        };
        let mut base = self.base_of(first.position);
        if base >= target {
            return Ok(walk);
        }
        self.note(&first);
        loop {
            base += self.config.segment_bytes;
            let header = match self.first_header(base) {
                Ok(header) => header,
                Err(Stop { failure: None, .. }) if self.durable <= base => {
                    return Err(OpenError::BaseBeyondTail { base: position, tail: base });
                }
                Err(stop) => {
                    // What it should be follows from the segment before; whoever reads it finds the damage again.
                    let walk = self.end_of_segment(base - self.config.segment_bytes, stop)?;
                    if base == target {
                        return Ok(walk);
                    }
                    let first = walk.last.map_or(0, |last| last.index + 1);
                    self.note_at(first, base);
                    continue;
                }
            };
            if base == target {
                let last = header.index.checked_sub(1).map(|index| EntryId { term: 0, index });
                return Ok(Walk { end: base, prev_crc: header.prev_crc, last });
            }
            self.note(&header);
        }
    }

    /// The header of the first record of the segment at `base`.
    fn first_header(&self, base: u64) -> Result<RecordHeader, Stop> {
        let header = self.header(base)?;
        if header.position == base {
            Ok(header)
        } else {
            Err(Stop::new(base, "it is not the segment's first record"))
        }
    }

    /// Where the records of the segment at `base` end, by their headers alone; `damaged` is why somebody wants to know.
    fn end_of_segment(&self, base: u64, damaged: Stop) -> Result<Walk, OpenError> {
        let first = self.segments.last().filter(|live| live.segment.base == base).map(|live| live.first);
        let Some((_, mut position)) = first else { return Err(self.refusal(damaged)) };
        let mut walk: Option<Walk> = None;
        loop {
            let header = match (&walk, self.header(position)) {
                (Some(walk), Ok(header)) if self.continues(walk, position).is_ok() => header,
                (None, Ok(header)) if header.position == position => header,
                _ => break,
            };
            walk.get_or_insert(Walk { end: 0, prev_crc: 0, last: None }).past(&header);
            position = header.end();
            if base_of(position, self.config.segment_bytes) != base {
                break;
            }
        }
        walk.ok_or_else(|| self.refusal(damaged))
    }

    fn header(&self, position: u64) -> Result<RecordHeader, Stop> {
        let base = self.base_of(position);
        let file = self.files.get(&base).ok_or_else(|| Stop::new(position, RecordError::Short))?;
        let mut bytes = [0; HEADER_BYTES];
        let room = (base + self.config.segment_bytes - position).min(HEADER_BYTES as u64) as usize;
        let read = read_again_if_lost(&**file, &mut bytes[..room], position - base);
        let read = read.map_err(|error| Stop::read(position, error))?;
        RecordHeader::parse(&bytes[..read]).map_err(|reason| Stop::record(position, reason))
    }

    /// The header of the record that continues the log: right at its end, or, by the filler rule, at the start of the
    /// next segment.
    fn next(&self, walk: &Walk) -> Result<RecordHeader, Stop> {
        let room = self.config.segment_bytes - walk.end % self.config.segment_bytes;
        let here = self.continues(walk, walk.end);
        let Err(here) = here else { return here };
        if room == self.config.segment_bytes || here.failure.is_some() {
            return Err(here);
        }
        match self.continues(walk, walk.end + room) {
            Ok(header) if u64::from(header.length) > room => Ok(header),
            Ok(_) => Err(here),
            Err(there) if there.failure.is_some() => Err(there),
            // Nothing was written here, and something acknowledged lies behind: it is the next segment that is damaged.
            Err(there) if self.is_blank(walk.end) && self.durable > there.position => Err(there),
            Err(_) => Err(here),
        }
    }

    fn continues(&self, walk: &Walk, position: u64) -> Result<RecordHeader, Stop> {
        let stop = |reason: String| Stop::new(position, reason);
        let header = self.header(position)?;
        let consecutive = walk
            .last
            .is_none_or(|last| last.index.checked_add(1) == Some(header.index) && last.term <= header.term);
        if header.position != position || header.prev_crc != walk.prev_crc || !consecutive {
            return Err(stop(format!("entry {} does not continue the log", header.id())));
        }
        if header.end() > self.base_of(position) + self.config.segment_bytes {
            return Err(stop("the record crosses its segment".into()));
        }
        Ok(header)
    }

    /// Whether nothing was written at `position`, or no header fits there.
    fn is_blank(&self, position: u64) -> bool {
        let base = self.base_of(position);
        let mut bytes = [0; HEADER_BYTES];
        let Some(file) = self.files.get(&base) else { return true };
        file.read_at(&mut bytes, position - base)
            .is_ok_and(|read| bytes[..read].iter().all(|&byte| byte == 0))
    }

    fn record(&self, header: &RecordHeader) -> Result<Record, Stop> {
        let position = header.position;
        let base = self.base_of(position);
        let missing = || Stop::new(position, "its segment is missing");
        let file = self.files.get(&base).ok_or_else(missing)?;
        let mut frame = vec![0; header.length as usize];
        let read = read_again_if_lost(&**file, &mut frame, position - base);
        frame.truncate(read.map_err(|error| Stop::read(position, error))?);
        Record::parse(frame.into()).map_err(|reason| Stop::record(position, reason))
    }

    fn restamp(&self, stamper: &mut Stamper, record: &Record) -> Result<(), OpenError> {
        if !record.header.kind.has_messages() {
            return Ok(());
        }
        let (header, position) = (&record.header, record.position());
        let (at, messages) = (record.messages_position(), record.messages());
        let checked = stamper.check(header.index, at, header.messages, messages);
        checked.map_err(|source| OpenError::Divergence { file: self.path(position), position, source })
    }

    fn note(&mut self, header: &RecordHeader) {
        self.note_at(header.index, header.position);
    }

    fn note_at(&mut self, index: u64, position: u64) {
        let base = self.base_of(position);
        if self.segments.last().is_none_or(|live| live.segment.base != base) {
            let segment = Segment::new(base);
            if let Some(file) = self.files.get(&base) {
                segment.set_file(file);
            }
            self.segments.push(Live { segment: Arc::new(segment), first: (index, position) });
        }
        if let Some(live) = self.segments.last() {
            live.segment.note(index, position);
        }
    }

    fn rot(&self, position: u64, reason: String) -> OpenError {
        OpenError::Rot { file: self.path(position), position, durable: self.durable, reason }
    }

    /// A stop that is not the end of the log.
    fn refusal(&self, stop: Stop) -> OpenError {
        match stop.failure {
            Some(source) => OpenError::Io { operation: "read", path: self.path(stop.position), source },
            None => self.rot(stop.position, stop.reason),
        }
    }

    fn refuse_rot(&self, walk: &Walk, stop: Stop) -> Result<(), OpenError> {
        let is_rot = stop.lost || self.durable > walk.end;
        if stop.failure.is_some() || (is_rot && self.on_rot == OnRot::Refuse) {
            return Err(self.refusal(stop));
        }
        if is_rot {
            let (position, reason, durable) = (stop.position, stop.reason, self.durable);
            tracing::error!(
                position,
                reason,
                durable,
                "log.I5: acknowledged records are damaged, the log is cut there"
            );
        }
        Ok(())
    }
}
