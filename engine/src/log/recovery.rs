//! Opening: finds where the log ends, tells a torn tail from rot, and cuts the tail off.
//!
//! Every record from the checkpoint (`base`) to the tail is read and verified: crcs, the chain, term and index, stamps.
//! Of the segments before only the first header is looked at. Nothing is changed before the verdict; when it is rot,
//! nothing is changed at all.
//!
//! The verdict. The log ends where no record continues the chain. If the durable mark lies beyond that end, records this
//! node has acknowledged are missing: rot (`log.I5`). Otherwise what follows was never acknowledged: a torn tail; the
//! rest of the segment is zeroed and later segments are removed, durably, before anything is appended (`log.I7`).

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{IoContext, OpenError};
use super::mark::{Mark, Start};
use super::segment::{Segment, base_of, base_of_path, path_of};
use super::truncate::zero;
use super::view::Live;
use super::{LogConfig, StampBase, prepare};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::record::{EntryId, HEADER_BYTES, Record, RecordError, RecordHeader, RecordKind};
use crate::stamp::Stamper;

/// Bytes looked at together when searching the rest of a segment for what is not zero.
const SEARCH_BYTES: usize = 1 << 20;
/// Bytes behind the end that are zeroed whether or not they read as zero; more than a header.
const END_BYTES: u64 = 4096;

pub(super) type Files = BTreeMap<u64, Arc<dyn DiskFile>>;

/// What recovery found.
pub(super) struct Recovered {
    pub(super) files: Files,
    pub(super) segments: Vec<Live>,
    pub(super) stamper: Stamper,
    pub(super) walk: Walk,
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
}

impl Stop {
    fn new(position: u64, reason: impl ToString) -> Stop {
        Stop { position, reason: reason.to_string(), failure: None }
    }

    /// Of a read: a file that ends too early is no failure of the disk.
    fn read(position: u64, error: io::Error) -> Stop {
        let reason = error.to_string();
        let failure = (error.kind() != io::ErrorKind::UnexpectedEof).then_some(error);
        Stop { position, reason, failure }
    }
}

pub(super) struct Recovery<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) directory: &'a Path,
    pub(super) config: LogConfig,
    pub(super) start: Start,
    pub(super) durable: u64,
    files: Files,
    segments: Vec<Live>,
}

impl<'a> Recovery<'a> {
    /// Opens the segment files that are there.
    pub(super) fn new(
        disk: &'a dyn Disk,
        directory: &'a Path,
        config: LogConfig,
        start: Start,
        mark: &Mark,
    ) -> Result<Recovery<'a>, OpenError> {
        let durable = mark.position();
        let mut recovery =
            Recovery { disk, directory, config, start, durable, files: Files::new(), segments: Vec::new() };
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
    pub(super) fn run(mut self, base: StampBase) -> Result<Recovered, OpenError> {
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
        let cut_bytes = self.cut(walk.end)?;
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
        Ok(Recovered { files: self.files, segments: self.segments, stamper, walk })
    }

    fn base_of(&self, position: u64) -> u64 {
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
            let header = match self.header(base) {
                Ok(header) => header,
                Err(Stop { failure: None, .. }) if self.durable <= base => {
                    return Err(OpenError::BaseBeyondTail { base: position, tail: base });
                }
                Err(stop) => return Err(self.refusal(stop)),
            };
            if header.position != base {
                return Err(self.rot(base, "it is not the segment's first record".into()));
            }
            if base == target {
                let last = header.index.checked_sub(1).map(|index| EntryId { term: 0, index });
                return Ok(Walk { end: base, prev_crc: header.prev_crc, last });
            }
            self.note(&header);
        }
    }

    fn header(&self, position: u64) -> Result<RecordHeader, Stop> {
        let base = self.base_of(position);
        let file = self.files.get(&base).ok_or_else(|| Stop::new(position, RecordError::Short))?;
        let mut bytes = [0; HEADER_BYTES];
        let room = (base + self.config.segment_bytes - position).min(HEADER_BYTES as u64) as usize;
        let read = file.read_at(&mut bytes[..room], position - base);
        let read = read.map_err(|error| Stop::read(position, error))?;
        RecordHeader::parse(&bytes[..read]).map_err(|reason| Stop::new(position, reason))
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
        let frame = file.slice(position - base, header.length as usize);
        let frame = frame.map_err(|error| Stop::read(position, error))?;
        Record::parse(frame).map_err(|reason| Stop::new(position, reason))
    }

    fn restamp(&self, stamper: &mut Stamper, record: &Record) -> Result<(), OpenError> {
        if record.header.kind != RecordKind::Messages {
            return Ok(());
        }
        let (header, position) = (&record.header, record.position());
        let checked = stamper.check(header.index, position, header.messages, &record.payload());
        checked.map_err(|source| OpenError::Divergence { file: self.path(position), position, source })
    }

    fn note(&mut self, header: &RecordHeader) {
        let base = self.base_of(header.position);
        if self.segments.last().is_none_or(|live| live.segment.base != base) {
            let segment = Segment::new(base);
            if let Some(file) = self.files.get(&base) {
                segment.set_file(file);
            }
            self.segments.push(Live { segment: Arc::new(segment), first: (header.index, header.position) });
        }
        if let Some(live) = self.segments.last() {
            live.segment.note(header.index, header.position);
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
        let refused = self.durable > walk.end || stop.failure.is_some();
        if refused { Err(self.refusal(stop)) } else { Ok(()) }
    }

    /// Makes the log end at `end`, durably. Returns how many bytes of it were not zero.
    fn cut(&mut self, end: u64) -> Result<u64, OpenError> {
        let base = self.base_of(end);
        // A segment below the start that still stands is left over from a purge that a crash cut short.
        let first = self.segments.first().map_or(base, |live| live.segment.base);
        let gone: Vec<u64> =
            self.files.keys().copied().filter(|&other| other < first || other > base).collect();
        for other in gone {
            self.files.remove(&other);
            let path = path_of(self.directory, other);
            self.disk.remove(&path).context("remove", &path)?;
        }
        let path = path_of(self.directory, base);
        let made = prepare::create(self.disk, self.directory, base, self.config.segment_bytes);
        let file = self.files.entry(base).or_insert(made.context("make", &path)?);
        let cut =
            blank(&**file, end - base, self.config.segment_bytes).context("cut the torn tail of", &path)?;
        self.settle(end)?;
        Ok(cut)
    }

    /// Makes what was found durable: it counts as the log from now on. Up to the durable mark it is; behind it, it may be
    /// in the page cache only, where a killed process left it. If that process was stopped by a failed sync, those pages
    /// pass for clean and another sync would leave them out: they are written again.
    fn settle(&self, end: u64) -> Result<(), OpenError> {
        for (&base, file) in &self.files {
            let path = path_of(self.directory, base);
            let segment_end = base + self.config.segment_bytes;
            let (from, to) = (self.durable.max(base), end.min(segment_end));
            rewrite(&**file, from - base, to.saturating_sub(base)).context("write again", &path)?;
            if (base..segment_end).contains(&end) {
                // The zeroes of a truncation likewise: without its first bytes no old record continues the log.
                let to = segment_end.min(end + END_BYTES);
                zero(&**file, end - base, to - base).context("write again", &path)?;
            }
            file.sync_data().context("sync", &path)?;
        }
        Ok(())
    }
}

/// Writes the bytes from `from` to `end` of a file once more.
fn rewrite(file: &dyn DiskFile, from: u64, end: u64) -> io::Result<()> {
    let mut bytes = vec![0; SEARCH_BYTES.min(end.saturating_sub(from) as usize)];
    let mut at = from;
    while at < end {
        let count = bytes.len().min((end - at) as usize);
        let read = file.read_at(&mut bytes[..count], at)?;
        if read == 0 {
            return Ok(());
        }
        file.write_all_at(&[IoSlice::new(&bytes[..read])], at)?;
        at += read as u64;
    }
    Ok(())
}

/// Zeroes what is not zero from `from` to `end`; returns how many bytes were looked at again for it.
fn blank(file: &dyn DiskFile, from: u64, end: u64) -> io::Result<u64> {
    let mut bytes = vec![0; SEARCH_BYTES.min(end.saturating_sub(from) as usize)];
    let (mut at, mut cut) = (from, 0);
    while at < end {
        let count = bytes.len().min((end - at) as usize);
        let read = file.read_at(&mut bytes[..count], at)?;
        if bytes[..read].iter().any(|&byte| byte != 0) {
            zero(file, at, at + read as u64)?;
            cut += read as u64;
        }
        at += count as u64;
    }
    Ok(cut)
}
