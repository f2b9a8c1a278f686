//! Recovery's one change: the log is made to end where its last whole record does, durably (`log.I7`).
//!
//! Where acknowledged records go with it, they are kept first (`log.I9`): `<20-digit position>.cut` beside the segments has
//! the bytes from that position on, up to the last one of its segment that is not zero; a second one of that name is
//! `.cut.1`, and so on.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use super::error::{IoContext, OpenError};
use super::prepare;
use super::recovery::Recovery;
use super::remove::Leaving;
use super::segment::{self, path_of};
use super::truncate::zero;
use crate::disk::{Around, Disk, DiskFile, OpenMode, PAGE_BYTES, is_full, is_lost, read_around_lost};

/// Bytes looked at together when searching the rest of a segment for what is not zero.
const SEARCH_BYTES: usize = 1 << 20;
/// Bytes behind the end that are zeroed whether or not they read as zero: a page, more than a header.
const END_BYTES: u64 = 4096;

impl Recovery<'_> {
    /// Keeps, durably, what a cut at `end` is about to take away (`log.I9`). What needs room comes first: where there is none
    /// this fails with every record in its place.
    pub(super) fn keep(&mut self, end: u64) -> Result<(), OpenError> {
        self.remove_blank(end)?;
        let later: Vec<u64> = self.files.range(self.base_of(end)..).map(|(&base, _)| base).collect();
        for base in later {
            let from = end.max(base);
            let path = path_of(self.directory, base);
            let Some(file) = self.files.get(&base).cloned() else { continue };
            let data = data_end(&*file, from - base).context("read", &path)?;
            let bytes = data.saturating_sub(from - base);
            if bytes == 0 {
                continue;
            }
            let kept = free_name(self.disk, self.directory, from).context("look for", &path)?;
            if from == base {
                self.files.remove(&base);
                self.disk.rename(&path, &kept).context("rename", &path)?;
            } else {
                copy(&*file, from - base, data, self.disk, &kept).context("copy the cut tail to", &kept)?;
            }
            tracing::error!(file = %kept.display(), bytes, "what is cut off the log is kept here");
        }
        self.disk.sync_dir(self.directory).context("sync", self.directory)
    }

    /// Removes segments behind `end` that hold nothing: what was made ahead gives its room to what is kept.
    fn remove_blank(&mut self, end: u64) -> Result<(), OpenError> {
        let later: Vec<u64> = self.files.range(end..).map(|(&base, _)| base).collect();
        for base in later.into_iter().filter(|base| *base > end) {
            let path = path_of(self.directory, base);
            let Some(file) = self.files.get(&base) else { continue };
            if data_end(&**file, 0).context("read", &path)? == 0 {
                self.files.remove(&base);
                self.disk.remove(&path).context("remove", &path)?;
            }
        }
        Ok(())
    }

    /// Makes the log end at `end`, durably. Returns how many bytes of it were not zero, and the segment that the next record
    /// goes to if a full disk has no room for it: the log opens without.
    pub(super) fn cut(&mut self, end: u64) -> Result<(u64, Option<u64>), OpenError> {
        let base = self.base_of(end);
        let gone: Vec<u64> = self.files.keys().copied().filter(|&other| other > base).collect();
        for other in gone {
            self.files.remove(&other);
            let path = path_of(self.directory, other);
            self.disk.remove(&path).context("remove", &path)?;
        }
        let path = path_of(self.directory, base);
        let unreserved = match prepare::create(self.disk, self.directory, base, self.config.segment_bytes) {
            Ok(file) => {
                self.files.entry(base).or_insert(file);
                None
            }
            Err(error) if is_full(&error) => {
                tracing::warn!(file = %path.display(), "disk full: the log's segment waits for room");
                self.disown_empty(base, end).context("remove", &path)?;
                Some(base)
            }
            Err(error) => return Err(error).context("make", &path),
        };
        let cut = match self.files.get(&base) {
            Some(file) => blank(&**file, end - base, self.config.segment_bytes),
            None => Ok(0),
        };
        let cut = cut.context("cut the torn tail of", &path)?;
        self.settle(end)?;
        Ok((cut, unreserved))
    }

    /// Removes the last segment's file if no record is in it: a reservation that a stop cut short has left it.
    fn disown_empty(&mut self, base: u64, end: u64) -> io::Result<()> {
        if end > base || self.files.remove(&base).is_none() {
            return Ok(());
        }
        segment::remove(self.disk, self.directory, base)
    }

    /// Takes out the segments below the start of a log that ends at `end`: left over from a purge that a crash or a stop
    /// cut short.
    pub(super) fn leaving(&mut self, end: u64) -> Vec<Leaving> {
        let first = self.segments.first().map_or(self.base_of(end), |live| live.segment.base);
        let kept = self.files.split_off(&first);
        let below = std::mem::replace(&mut self.files, kept);
        below.into_iter().map(|(base, file)| Leaving { base, file: Some(file) }).collect()
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
                blank_again(&**file, end - base, to - base).context("write again", &path)?;
            }
            file.sync_data().context("sync", &path)?;
        }
        Ok(())
    }
}

/// Whether a file of the log's directory holds what was cut off the log.
pub(super) fn is_kept(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.split_once(".cut")).is_some_and(|(position, _)| position.len() == 20)
}

fn free_name(disk: &dyn Disk, directory: &Path, position: u64) -> io::Result<PathBuf> {
    let mut path = directory.join(format!("{position:020}.cut"));
    let mut number = 0;
    while disk.exists(&path)? {
        number += 1;
        path = directory.join(format!("{position:020}.cut.{number}"));
    }
    Ok(path)
}

/// The end of the last byte from `from` on that is not zero; `from` if there is none.
fn data_end(file: &dyn DiskFile, from: u64) -> io::Result<u64> {
    let mut bytes = vec![0; SEARCH_BYTES];
    let (mut at, mut end) = (from, from);
    loop {
        let Around { read, .. } = read_around_lost(file, &mut bytes, at, false)?;
        if read == 0 {
            return Ok(end);
        }
        if let Some(last) = bytes[..read].iter().rposition(|&byte| byte != 0) {
            end = at + last as u64 + 1;
        }
        at += read as u64;
    }
}

/// Copies the bytes from `from` to `end` of a file into a new one, durably but for its name; zeroes where the device has
/// lost them. A full disk gets back what it gave for a part of them.
fn copy(file: &dyn DiskFile, from: u64, end: u64, disk: &dyn Disk, to: &Path) -> io::Result<()> {
    let read = |bytes: &mut [u8], at| read_around_lost(file, bytes, at, false).map(|around| around.read);
    let copy_once = || {
        let target = disk.open(to, OpenMode::Create)?;
        each_part(read, from, end, |at, bytes| target.write_all_at(&[IoSlice::new(bytes)], at - from))?;
        target.sync_all()
    };
    let mut copied = copy_once();
    if copied.as_ref().is_err_and(is_full) && disk.make_room() {
        copied = copy_once();
    }
    if copied.as_ref().is_err_and(is_full) {
        disk.remove(to).ok();
    }
    copied
}

/// Writes the bytes from `from` to `end` of a file once more. What the device has lost stays as it is: it is filler or a record
/// before the checkpoint, no part of what was just read as the log's end.
fn rewrite(file: &dyn DiskFile, from: u64, end: u64) -> io::Result<()> {
    let mut bytes = vec![0; SEARCH_BYTES.min(end.saturating_sub(from) as usize)];
    let mut at = from;
    while at < end {
        let next = end.min(at + SEARCH_BYTES as u64);
        let mut page = at;
        let all = rewrite_part(file, &mut bytes[..(next - at) as usize], at)?;
        while !all && page < next {
            let end = next.min((page / PAGE_BYTES + 1) * PAGE_BYTES);
            if !rewrite_part(file, &mut bytes[..(end - page) as usize], page)? {
                tracing::warn!(offset = page, "a page of the log is lost");
            }
            page = end;
        }
        at = next;
    }
    Ok(())
}

/// False, and nothing is written, where the device has lost a part of it.
fn rewrite_part(file: &dyn DiskFile, bytes: &mut [u8], at: u64) -> io::Result<bool> {
    let read = match file.read_at(bytes, at) {
        Err(error) if is_lost(&error) => return Ok(false),
        read => read?,
    };
    file.write_all_at(&[IoSlice::new(&bytes[..read])], at)?;
    Ok(true)
}

/// Reads from `from` to `end`, or to the file's end, and hands on each part with where it lies.
fn each_part(
    read: impl Fn(&mut [u8], u64) -> io::Result<usize>,
    from: u64,
    end: u64,
    mut part: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut bytes = vec![0; SEARCH_BYTES.min(end.saturating_sub(from) as usize)];
    let mut at = from;
    while at < end {
        let count = bytes.len().min((end - at) as usize);
        let count = read(&mut bytes[..count], at)?;
        if count == 0 {
            break;
        }
        part(at, &bytes[..count])?;
        at += count as u64;
    }
    Ok(())
}

/// Zeroes what is not zero, or cannot be read, from `from` to `end`; returns how many bytes were looked at again for it. Most of a segment's
/// rest was never written, and is not read for it.
fn blank(file: &dyn DiskFile, from: u64, end: u64) -> io::Result<u64> {
    let mut bytes = vec![0; SEARCH_BYTES.min(end.saturating_sub(from) as usize)];
    let (mut at, mut cut) = (from, 0);
    while let Some(data) = file.next_data(at)?.filter(|data| *data < end) {
        let count = bytes.len().min((end - data) as usize);
        let Around { read, lost } = read_around_lost(file, &mut bytes[..count], data, false)?;
        if lost || !is_zero(&bytes[..read]) {
            zero(file, data, data + read as u64)?;
            cut += read as u64;
        }
        at = data + count as u64;
    }
    Ok(cut)
}

/// Zeroes the bytes from `from` to `end`, page by page: a page that a full disk has no block for is a hole, which is zero.
fn blank_again(file: &dyn DiskFile, from: u64, end: u64) -> io::Result<()> {
    let mut at = from;
    while at < end {
        let next = end.min((at / END_BYTES + 1) * END_BYTES);
        match zero(file, at, next) {
            Err(error) if is_full(&error) => {}
            zeroed => zeroed?,
        }
        at = next;
    }
    Ok(())
}

/// A block at a time without looking after each byte, so that many bytes are compared at once.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(4096).all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
}
