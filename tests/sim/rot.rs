//! Bytes that change on a disk by themselves.

use std::path::{Path, PathBuf};

use folio_engine::checkpoint::Checkpoint;
use folio_engine::disk::Disk;
use folio_engine::disk::sim::{SeededChoice, SimDisk};

/// Bytes that are zeroed together.
const PAGE_BYTES: u64 = 4096;
/// Bytes at the start of a slot's page in which something stands.
const SLOT_USED: u64 = 40;

/// What of a node rots.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
pub(crate) enum Rot {
    /// A record of the log, or the filler behind a segment's last one.
    Record,
    /// A unit of a consume queue.
    Unit,
    /// One of the two copies of the vote.
    Vote,
    /// One of the two copies of the durable mark.
    Mark,
    /// The checkpoint, a snapshot, or the tails of consume queues.
    Checkpoint,
    /// One snapshot.
    Snapshot,
    /// A file of the timer index or of the key index.
    Index,
}

impl Rot {
    fn is_of(self, path: &Path) -> bool {
        match self {
            Rot::Record => path.starts_with("/data/commitlog"),
            Rot::Unit => path.starts_with("/data/consumequeue"),
            Rot::Vote => path == Path::new("/data/vote"),
            Rot::Mark => path == Path::new("/data/durable"),
            Rot::Snapshot => path.starts_with("/data/snapshots"),
            Rot::Index => path.starts_with("/data/timers") || path.starts_with("/data/keyindex"),
            Rot::Checkpoint => {
                path == Path::new("/data/checkpoint")
                    || path == Path::new("/data/consumequeue.tails")
                    || path.starts_with("/data/snapshots")
            }
        }
    }

    /// Flips a bit, or zeroes up to a page, where there is something. Returns what was struck.
    pub(crate) fn strike(self, disk: &SimDisk, random: &mut SeededChoice) -> Option<String> {
        let files: Vec<(PathBuf, Vec<u8>)> = disk
            .dump()
            .into_iter()
            .filter_map(|(path, content)| Some((path, content?)))
            .filter(|(path, content)| self.is_of(path) && content.iter().any(|byte| *byte != 0))
            .collect();
        if files.is_empty() {
            return None;
        }
        let chosen = random.below(files.len() as u64) as usize;
        let (path, content) = &files[chosen];
        // Where the log goes on in the next file, this one ends in filler, which counts as well.
        let next = base_of(path).filter(|_| self == Rot::Record).map(|base| base + content.len() as u64);
        let is_whole = files.iter().any(|(path, _)| next.is_some() && base_of(path) == next);
        let used = if is_whole { content.len() } else { content.iter().rposition(|byte| *byte != 0)? + 1 };
        let used = used as u64;
        let at = match self {
            Rot::Vote | Rot::Mark => random.below(2) * PAGE_BYTES + random.below(SLOT_USED),
            Rot::Record | Rot::Unit | Rot::Checkpoint | Rot::Snapshot | Rot::Index => random.below(used),
        };
        let one_bit = random.below(2) == 0;
        let bit = random.below(8) as u32;
        if one_bit {
            disk.flip_bit(path, at, bit).ok()?;
        } else {
            zero(disk, path, content, at - at % PAGE_BYTES)?;
        }
        Some(format!("{} at {at}, {}", path.display(), if one_bit { "a bit" } else { "a page" }))
    }
}

/// Where a segment of the log begins.
fn base_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.parse().ok()
}

/// Whether the node has a whole checkpoint that it can start from. One that is older than the log's first record is none.
pub(crate) fn has_checkpoint(disk: &SimDisk) -> bool {
    let mut files = disk.dump();
    let checkpoint = files.remove(Path::new("/data/checkpoint")).flatten();
    let checkpoint = checkpoint.and_then(|file| Checkpoint::decode(&file.into()).ok());
    let segments = files.keys().filter(|path| Rot::Record.is_of(path));
    let start = segments.filter_map(|path| base_of(path)).min();
    checkpoint.is_some_and(|checkpoint| start.is_none_or(|start| checkpoint.base.position >= start))
}

/// Whether the node has a whole snapshot.
pub(crate) fn has_snapshot(disk: &SimDisk) -> bool {
    disk.dump().into_iter().any(|(path, content)| Rot::Snapshot.is_of(&path) && is_whole(content))
}

fn is_whole(file: Option<Vec<u8>>) -> bool {
    file.is_some_and(|file| Checkpoint::decode(&file.into()).is_ok())
}

/// What becomes of all snapshots of a node at once: they are derived, so no node's are more than it may lose.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
pub(crate) enum Snapshots {
    /// A bit of each flips.
    Rotten,
    /// They are deleted.
    Deleted,
}

impl Snapshots {
    /// How many there were.
    pub(crate) fn strike(self, disk: &SimDisk) -> usize {
        let files: Vec<(PathBuf, Vec<u8>)> = disk
            .dump()
            .into_iter()
            .filter_map(|(path, content)| Some((path, content?)))
            .filter(|(path, content)| Rot::Snapshot.is_of(path) && !content.is_empty())
            .collect();
        for (path, content) in &files {
            let struck = match self {
                Snapshots::Rotten => disk.flip_bit(path, content.len() as u64 / 2, 3),
                Snapshots::Deleted => disk.remove(path),
            };
            drop(struck);
        }
        files.len()
    }
}

/// Bytes that a file loses with a bad sector.
const SECTOR_LOSES: u64 = PAGE_BYTES;

/// Loses a page of what is stored, below `applied` of the log: what is behind that is still in the page cache of whoever
/// wrote it, and the next write to it reads nothing. Returns what was struck.
pub(crate) fn lose(
    what: Rot,
    disk: &SimDisk,
    applied: u64,
    segment_bytes: u64,
    random: &mut SeededChoice,
) -> Option<String> {
    let page_ends: Vec<(PathBuf, u64)> = disk
        .dump()
        .into_iter()
        .filter_map(|(path, content)| Some((path, content?.len() as u64)))
        .filter(|(path, _)| what.is_of(path))
        .filter_map(|(path, length)| {
            let base: u64 = path.file_name()?.to_str()?.parse().unwrap_or(0);
            let end = match what {
                Rot::Record => length.min(segment_bytes).min(applied.saturating_sub(base)) / SECTOR_LOSES,
                _ => length.div_ceil(SECTOR_LOSES),
            };
            (end > 0).then_some((path, end))
        })
        .collect();
    if page_ends.is_empty() {
        return None;
    }
    let (path, pages) = &page_ends[random.below(page_ends.len() as u64) as usize];
    let from = random.below(*pages) * SECTOR_LOSES;
    disk.lose(path, from..from + SECTOR_LOSES).ok()?;
    Some(format!("{} at {from}", path.display()))
}

fn zero(disk: &SimDisk, path: &Path, content: &[u8], from: u64) -> Option<()> {
    for (byte, at) in content.iter().skip(from as usize).take(PAGE_BYTES as usize).zip(from..) {
        for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
            disk.flip_bit(path, at, bit).ok()?;
        }
    }
    Some(())
}
