//! A run: a file of entries in order, of a part of one segment of the log. It is written once and never grows.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::block::{self, BLOCK_BYTES, BLOCK_ENTRIES};
use super::entry::Entry;
use super::error::KeysError;
use super::header::Header;
use crate::disk::{Disk, DiskFile, OpenMode, read_around_lost, temporary_beside};

/// Blocks that are read or written together.
pub(super) const BLOCKS_TOGETHER: usize = 16;
/// Guesses by the even spread of hashes before the search halves.
const GUESSES: usize = 3;

/// What names a run: the index of its first entry of the log, and the one behind its last.
pub(super) type RunId = (u64, u64);

/// See the module.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) header: Header,
    pub(super) path: PathBuf,
}

/// The name of a run's file.
fn file_name((from, to): RunId) -> String {
    format!("{from:020}-{to:020}")
}

/// The run that a file's name says, written as we write it.
pub(super) fn parse_name(path: &Path) -> Option<RunId> {
    let name = path.file_name()?.to_str()?;
    let (from, to) = name.split_once('-')?;
    let id = (from.parse().ok()?, to.parse().ok()?);
    (file_name(id) == name).then_some(id)
}

impl Run {
    pub(super) fn id(&self) -> RunId {
        (self.header.from.next_index(), self.header.to.next_index())
    }

    /// Opens a file; none when it is not the run that its name says, or has not its length.
    pub(super) fn open(disk: &dyn Disk, path: &Path) -> Result<Option<Run>, KeysError> {
        let file = disk.open(path, OpenMode::Read).map_err(KeysError::io(path, "open"))?;
        let mut first = [0; BLOCK_BYTES];
        let read = file.read_at(&mut first, 0);
        let is_read = read.is_ok_and(|read| read == BLOCK_BYTES);
        let Some(header) = is_read.then(|| Header::decode(&first)).flatten() else { return Ok(None) };
        let run = Run { header, path: path.into() };
        let length = file.len().map_err(KeysError::io(path, "measure"))?;
        Ok((parse_name(path) == Some(run.id()) && length == header.file_bytes()).then_some(run))
    }

    /// Writes a run of these entries, which are in order; of equal ones the first. It is durable, but for its name, and not
    /// there at all when this fails. The header's number of entries is counted here.
    pub(super) fn write(
        disk: &dyn Disk,
        dir: &Path,
        header: Header,
        entries: impl Iterator<Item = Result<Entry, KeysError>>,
    ) -> Result<Run, KeysError> {
        let path = dir.join(file_name((header.from.next_index(), header.to.next_index())));
        let temporary = temporary_beside(&path);
        let write = || {
            let file =
                disk.open(&temporary, OpenMode::Create).map_err(KeysError::io(&temporary, "create"))?;
            let entries = write_blocks(&*file, &temporary, header.run(), entries)?;
            let header = Header { entries, ..header };
            let first = header.encode();
            file.write_all_at(&[IoSlice::new(&first)], 0).map_err(KeysError::io(&temporary, "write"))?;
            file.set_len(header.file_bytes()).map_err(KeysError::io(&temporary, "cut"))?;
            file.sync_all().map_err(KeysError::io(&temporary, "sync"))?;
            disk.rename(&temporary, &path).map_err(KeysError::io(&path, "rename"))?;
            Ok(header)
        };
        match write() {
            Ok(header) => Ok(Run { header, path }),
            Err(error) => {
                disk.remove(&temporary).ok();
                Err(error)
            }
        }
    }

    /// A handle to the file, for reads.
    pub(super) fn reader(&self, disk: &dyn Disk) -> Result<Reader<'_>, KeysError> {
        match disk.open(&self.path, OpenMode::Read) {
            Ok(file) => Ok(Reader { run: self, file }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(self.damaged(0)),
            Err(error) => Err(KeysError::io(&self.path, "open")(error)),
        }
    }

    pub(super) fn damaged(&self, block: u64) -> KeysError {
        KeysError::Damaged { path: self.path.clone(), block }
    }
}

/// Writes the blocks of entries, and returns how many entries there were.
fn write_blocks(
    file: &dyn DiskFile,
    path: &Path,
    run: u64,
    entries: impl Iterator<Item = Result<Entry, KeysError>>,
) -> Result<u64, KeysError> {
    let (mut count, mut number) = (0, 1);
    let mut block = Vec::with_capacity(BLOCK_ENTRIES);
    let mut bytes: Vec<u8> = Vec::with_capacity(BLOCKS_TOGETHER * BLOCK_BYTES);
    let mut place = BLOCK_BYTES as u64;
    let mut write = |bytes: &mut Vec<u8>| {
        file.write_all_at(&[IoSlice::new(bytes)], place).map_err(KeysError::io(path, "write"))?;
        place += bytes.len() as u64;
        bytes.clear();
        Ok::<_, KeysError>(())
    };
    let mut last = None;
    for entry in entries {
        let entry = entry?;
        if last.replace(entry) == Some(entry) {
            continue;
        }
        block.push(entry);
        count += 1;
        if block.len() == BLOCK_ENTRIES {
            bytes.extend(block::encode(run, number, &block));
            block.clear();
            number += 1;
        }
        if bytes.len() == BLOCKS_TOGETHER * BLOCK_BYTES {
            write(&mut bytes)?;
        }
    }
    if !block.is_empty() {
        bytes.extend(block::encode(run, number, &block));
    }
    if !bytes.is_empty() {
        write(&mut bytes)?;
    }
    Ok(count)
}

/// Reads blocks of a run.
pub(super) struct Reader<'a> {
    pub(super) run: &'a Run,
    file: Arc<dyn DiskFile>,
}

impl Reader<'_> {
    /// The entries of block `number`, from 1 on (`keys.I2`).
    pub(super) fn block(&self, number: u64) -> Result<Vec<Entry>, KeysError> {
        let mut bytes = [0; BLOCK_BYTES];
        let read = self.file.read_at(&mut bytes, number * BLOCK_BYTES as u64);
        let whole = read.is_ok_and(|read| read == BLOCK_BYTES);
        let entries = whole.then(|| block::decode(self.run.header.run(), number, &bytes)).flatten();
        entries.ok_or_else(|| self.run.damaged(number))
    }

    /// Which of these blocks are damaged on the disk itself.
    pub(super) fn damaged(&self, blocks: std::ops::Range<u64>) -> Vec<u64> {
        let mut bytes = vec![0; (blocks.end - blocks.start) as usize * BLOCK_BYTES];
        // What cannot be read is zero, and no block.
        let _ = read_around_lost(&*self.file, &mut bytes, blocks.start * BLOCK_BYTES as u64, true);
        let (read, _) = bytes.as_chunks::<BLOCK_BYTES>();
        let whole = |(number, block): &(u64, &[u8; BLOCK_BYTES])| match number {
            0 => Header::decode(block) == Some(self.run.header),
            number => block::is_whole(self.run.header.run(), *number, block),
        };
        blocks.zip(read).filter(|block| !whole(block)).map(|(number, _)| number).collect()
    }

    /// The greatest positions below `before` of entries with this hash, descending, until `found` has `max`.
    pub(super) fn look(
        &self,
        hash: u64,
        before: u64,
        max: usize,
        found: &mut Vec<u64>,
    ) -> Result<(), KeysError> {
        let target = Entry { hash, position: before };
        let mut number = self.first_not_below(target)?;
        // The entries below the target are in the blocks before, which begin below it.
        while number > 1 {
            number -= 1;
            let block = self.block(number)?;
            for entry in block.iter().rev().filter(|entry| **entry < target) {
                if entry.hash != hash || found.len() >= max {
                    return Ok(());
                }
                found.push(entry.position);
            }
        }
        Ok(())
    }

    /// The first block that begins with an entry not below this one; the one behind the last if there is none.
    fn first_not_below(&self, target: Entry) -> Result<u64, KeysError> {
        let (mut low, mut high) = (1, self.run.header.blocks() + 1);
        let (mut hash_low, mut hash_high) = (0u64, u64::MAX);
        let mut guesses = 0;
        while low < high {
            let span = high - low;
            let probe = if guesses < GUESSES && hash_low < hash_high {
                guesses += 1;
                let share = u128::from(target.hash.clamp(hash_low, hash_high) - hash_low);
                low + (share * u128::from(span) / (u128::from(hash_high - hash_low) + 1)) as u64
            } else {
                low + span / 2
            };
            let first = self.block(probe)?.first().copied().ok_or_else(|| self.run.damaged(probe))?;
            if first < target {
                (low, hash_low) = (probe + 1, first.hash);
            } else {
                (high, hash_high) = (probe, first.hash);
            }
        }
        Ok(low)
    }
}
