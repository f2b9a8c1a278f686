//! The side of the consume queues that changes them: one at a time, it adds units, writes and syncs.
//!
//! What was written since the last sync is remembered here: files to sync, and directories whose names are new.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::error::QueuesError;
use super::files::{FileKey, Files, file_path, parse_base};
use super::queue::{FLUSH_BYTES, Pushed, Queue};
use super::tails::{TAILS_BYTES_MAX, Tails, entry_bytes};
use super::unit::{UNIT_BYTES, Unit};
use crate::disk::{Disk, DiskFile, OpenMode, is_full, is_lost, read_around_lost, write_atomically};

/// Queues that a sync writes, or copies the tails of, at a time: appliers wait for that long.
pub(super) const QUEUES_PER_TURN: usize = 64;

/// How many of `due`, the oldest first, are to be written to their files: `least`, or as many more as would be too much.
pub(super) fn count_written(due: &[Arc<Queue>], least: usize) -> usize {
    let bytes = |queue: &Arc<Queue>| entry_bytes(&queue.topic, queue.unwritten_bytes());
    let mut room = TAILS_BYTES_MAX;
    let kept = due.iter().rev().take_while(|queue| {
        let fits = room.checked_sub(bytes(queue));
        room = fits.unwrap_or(0);
        fits.is_some()
    });
    least.max(due.len() - kept.count()).min(due.len())
}

/// See the module.
pub(super) struct Applier {
    /// The queue of the message before: batches mostly stay in one.
    pub(super) last: Option<Arc<Queue>>,
    /// Queues with units that may not be written, by and large those that wait longest first.
    unwritten: Vec<Arc<Queue>>,
    unsynced: Unsynced,
    /// Bytes of units taken into memory since the disk is full, and how many they may be, of all queues together.
    held_bytes: usize,
    held_max: usize,
}

/// Where nothing else is said: the units of 3.3 million messages.
const HELD_BYTES_MAX: usize = 64 << 20;

impl Default for Applier {
    fn default() -> Applier {
        Applier {
            last: None,
            unwritten: Vec::new(),
            unsynced: Unsynced::default(),
            held_bytes: 0,
            held_max: HELD_BYTES_MAX,
        }
    }
}

/// What a sync has to make durable.
#[derive(Default)]
pub(super) struct Unsynced {
    files: HashMap<FileKey, (PathBuf, Arc<dyn DiskFile>)>,
    directories: BTreeSet<PathBuf>,
}

impl Applier {
    /// Adds a unit to a queue.
    pub(super) fn push(
        &mut self,
        queue: &Arc<Queue>,
        offset: u64,
        unit: Unit,
        files: &Files,
    ) -> Result<Pushed, QueuesError> {
        let pushed = queue.push(offset, unit, files)?;
        let Pushed::Added { flush } = pushed else { return Ok(pushed) };
        self.held_bytes = if files.is_full() { self.held_bytes + UNIT_BYTES } else { 0 };
        if !queue.listed.swap(true, Ordering::Relaxed) {
            self.unwritten.push(queue.clone());
        }
        if flush {
            match self.write(queue, files) {
                // Memory holds the units.
                Err(QueuesError::DiskFull { .. }) => {}
                written => written?,
            }
        }
        Ok(pushed)
    }

    /// Has memory hold at most so many bytes of units for a full disk.
    pub(super) fn hold_at_most(&mut self, bytes: usize) {
        self.held_max = bytes;
    }

    /// The same that has nothing to do any more.
    pub(super) fn emptied(&self) -> Applier {
        Applier { held_max: self.held_max, ..Applier::default() }
    }

    /// Whether memory holds as much for a full disk as it may. It is asked for whole records: readers are to see none in part.
    pub(super) fn holds_all_it_may(&self, files: &Files) -> bool {
        files.is_full() && self.held_bytes >= self.held_max
    }

    /// Writes some of the queues that a full disk has kept from being written; true once there are none. Where none is due,
    /// one is tried all the same, to see whether there is room.
    pub(super) fn retry(&mut self, files: &Files) -> Result<bool, QueuesError> {
        let due = self.unwritten.iter().filter(|queue| queue.unwritten_bytes() >= FLUSH_BYTES);
        let mut due: Vec<_> = due.take(QUEUES_PER_TURN).cloned().collect();
        let done = due.is_empty();
        if done {
            due.extend(self.unwritten.iter().find(|queue| queue.unwritten_bytes() > 0).cloned());
        }
        due.iter().try_for_each(|queue| self.write(queue, files))?;
        Ok(done)
    }

    /// Overwrites damaged units from `offset` on with what they must be, durably. A failure leaves their
    /// files as they were.
    pub(super) fn rewrite(
        &mut self,
        queue: &Arc<Queue>,
        offset: u64,
        units: &[Unit],
        files: &Files,
    ) -> Result<(), QueuesError> {
        queue.rewrite(offset, units, |base, place, bytes| {
            self.unsynced.close_if_lost(queue, base, files)?;
            self.unsynced.replace(queue, base, files, (place, bytes))
        })
    }

    /// The queues with units that are not written, for [`Applier::take_unsynced`] or [`Applier::add_tails`].
    pub(super) fn take_unwritten(&mut self) -> Vec<Arc<Queue>> {
        let mut unwritten = std::mem::take(&mut self.unwritten);
        unwritten.retain(|queue| {
            let has_some = queue.unwritten_bytes() > 0;
            queue.listed.store(has_some, Ordering::Relaxed);
            has_some
        });
        unwritten
    }

    /// A queue with units in memory that are in no file of its own, as it was opened.
    pub(super) fn add_unwritten(&mut self, queue: &Arc<Queue>) {
        queue.listed.store(true, Ordering::Relaxed);
        self.unwritten.push(queue.clone());
    }

    /// Adds the unwritten units of these queues to `tails`; the queues stay unwritten.
    pub(super) fn add_tails(&mut self, queues: &[Arc<Queue>], tails: &mut Tails) {
        for queue in queues {
            if queue.add_tail(tails) {
                self.unwritten.push(queue.clone());
            } else {
                queue.listed.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Writes some of the queues of `due` and hands out what is to be synced. Those that cannot be written stay unwritten.
    pub(super) fn take_unsynced(
        &mut self,
        due: &mut Vec<Arc<Queue>>,
        files: &Files,
    ) -> Result<Unsynced, QueuesError> {
        for _ in 0..QUEUES_PER_TURN {
            let Some(queue) = due.pop() else { break };
            if let Err(error) = self.write(&queue, files) {
                self.unwritten.push(queue);
                self.unwritten.append(due);
                return Err(error);
            }
            queue.listed.store(false, Ordering::Relaxed);
        }
        Ok(std::mem::take(&mut self.unsynced))
    }

    fn write(&mut self, queue: &Arc<Queue>, files: &Files) -> Result<(), QueuesError> {
        let mut written = queue.flush(|base| self.unsynced.file(queue, base, files));
        if let Err(QueuesError::Io { path, source, .. }) = &written
            && is_lost(source)
            && let Some(base) = parse_base(path)
        {
            // A page that is written in part has to be read, and the device has lost it.
            self.unsynced.replace(queue, base, files, (0, &[]))?;
            written = queue.flush(|base| self.unsynced.file(queue, base, files));
        }
        if let Err(QueuesError::DiskFull { .. }) = &written {
            files.note_full(true);
        }
        written?;
        if self.unsynced.files.len() > files.unsynced_max() {
            std::mem::take(&mut self.unsynced).sync(files.disk())?;
        }
        Ok(())
    }
}

impl Unsynced {
    /// Opens a file to write to it, and remembers it with the names that lead to it.
    fn file(&mut self, queue: &Queue, base: u64, files: &Files) -> Result<Arc<dyn DiskFile>, QueuesError> {
        let key = (queue.serial, base);
        if let Some((_, file)) = self.files.get(&key) {
            return Ok(file.clone());
        }
        let path = file_path(&queue.dir, base);
        if !queue.placed.load(Ordering::Relaxed) {
            self.place(&queue.dir, files.disk())?;
            queue.placed.store(true, Ordering::Relaxed);
        }
        let file = match files.cached(key) {
            Some(file) => file,
            None => {
                // Whether or not the file is new: an earlier process may have died before it synced the name.
                self.directories.insert(queue.dir.clone());
                files.open(key, &path, OpenMode::Create).map_err(|error| open_failed(&path, error))?
            }
        };
        self.files.insert(key, (path, file.clone()));
        Ok(file)
    }

    /// Closes a file that somebody has removed, so that it is made again.
    fn close_if_lost(&mut self, queue: &Queue, base: u64, files: &Files) -> Result<(), QueuesError> {
        let path = file_path(&queue.dir, base);
        if !files.disk().exists(&path).map_err(QueuesError::io(&path, "look for"))? {
            self.files.remove(&(queue.serial, base));
            files.close((queue.serial, base));
            queue.placed.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// A copy takes a file's place, with other bytes at one place: where it was damaged it may not take a write either.
    /// Units that the device has lost are zero in it, which are no units. Durable when this returns.
    fn replace(
        &mut self,
        queue: &Queue,
        base: u64,
        files: &Files,
        (place, bytes): (u64, &[u8]),
    ) -> Result<(), QueuesError> {
        let (key, path) = ((queue.serial, base), file_path(&queue.dir, base));
        let old = self.file(queue, base, files)?;
        let copy = || -> std::io::Result<()> {
            let stored = old.len()?;
            let mut copy = vec![0; stored.max(place + bytes.len() as u64) as usize];
            read_around_lost(&*old, &mut copy[..stored as usize], 0, false)?;
            copy[place as usize..][..bytes.len()].copy_from_slice(bytes);
            write_atomically(files.disk(), &path, &copy)
        };
        copy().map_err(|error| match is_full(&error) {
            true => QueuesError::DiskFull { path: path.clone() },
            false => QueuesError::io(&path, "replace")(error),
        })?;
        tracing::warn!(file = %path.display(), "a copy took the place of a damaged file");
        self.files.remove(&key);
        files.close(key);
        self.file(queue, base, files).map(drop)
    }

    /// Makes a queue's directory; its name and its topic's are to be synced, whoever made them.
    fn place(&mut self, dir: &Path, disk: &dyn Disk) -> Result<(), QueuesError> {
        disk.create_dir_all(dir).map_err(|error| open_failed(dir, error))?;
        self.directories.extend(dir.ancestors().take(3).map(Path::to_path_buf));
        Ok(())
    }

    /// Makes everything durable: bytes first, then names.
    pub(super) fn sync(self, disk: &dyn Disk) -> Result<(), QueuesError> {
        let mut files: Vec<_> = self.files.into_iter().collect();
        files.sort_unstable_by_key(|(key, _)| *key);
        for (_, (path, file)) in files {
            file.sync_data().map_err(QueuesError::io(path, "sync"))?;
        }
        for directory in self.directories.into_iter().rev() {
            disk.sync_dir(&directory).map_err(QueuesError::io(&directory, "sync the directory"))?;
        }
        Ok(())
    }
}

fn open_failed(path: &Path, error: std::io::Error) -> QueuesError {
    if is_full(&error) {
        return QueuesError::DiskFull { path: path.into() };
    }
    QueuesError::io(path, "create")(error)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::super::tests::{Maker, apply, disk, empty};

    /// The thread that applies serves a whole group: while it stands, nobody is answered.
    #[test]
    fn appliers_do_not_wait_for_the_sync_of_a_thousand_queues() {
        let (disk, mut maker) = (disk(), Maker::default());
        let queues = empty(&disk);
        let many: Vec<(&str, u32)> = (0..1000).map(|number| ("wide", number)).collect();
        apply(&queues, &maker.record(&many));
        disk.hang_syncs(true);
        let before = disk.ops();
        let syncing = std::thread::spawn({
            let queues = queues.clone();
            move || queues.sync()
        });
        // Directories and files are made before the first of them is synced.
        while disk.ops() == before {
            std::thread::yield_now();
        }
        let (applied, told) = mpsc::channel();
        let next = maker.record(&many);
        std::thread::spawn({
            let queues = queues.clone();
            move || applied.send(apply(&queues, &next).len())
        });
        let told = told.recv_timeout(Duration::from_secs(20));
        disk.hang_syncs(false);
        syncing.join().unwrap().unwrap();
        assert_eq!(told, Ok(1000));
        assert_eq!(queues.bounds("wide", 999), Some((0, 2)));
    }
}
