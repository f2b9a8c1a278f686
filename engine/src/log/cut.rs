//! Recovery's one change: the log is made to end where its last whole record does, durably (`log.I7`).

use std::io::{self, IoSlice};

use super::error::{IoContext, OpenError};
use super::prepare;
use super::recovery::Recovery;
use super::segment::path_of;
use super::truncate::zero;
use crate::disk::DiskFile;

/// Bytes looked at together when searching the rest of a segment for what is not zero.
const SEARCH_BYTES: usize = 1 << 20;
/// Bytes behind the end that are zeroed whether or not they read as zero; more than a header.
const END_BYTES: u64 = 4096;

impl Recovery<'_> {
    /// Makes the log end at `end`, durably. Returns how many bytes of it were not zero.
    pub(super) fn cut(&mut self, end: u64) -> Result<u64, OpenError> {
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
