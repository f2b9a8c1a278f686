//! Bringing the files of consume queues to what a checkpoint says, when they are opened.
//!
//! The checkpoint was published after a sync, so every unit below its next offsets is durable, here or among the tails.
//! Units behind it may be there or not, whole or not; they are cut off and applied again.

use std::io;
use std::path::{Path, PathBuf};

use super::error::QueuesError;
use super::files::{FILE_BYTES, UNITS_PER_FILE, base_of, end_of, file_path, parse_base, place_of};
use super::unit::{Seed, UNIT_BYTES, Unit};
use crate::counters::{QueueCounters, topic_is_storable};
use crate::disk::{Disk, OpenMode};

/// The greatest offset whose bytes have a position.
const OFFSET_MAX: u64 = u64::MAX / FILE_BYTES * UNITS_PER_FILE;

/// Makes the root directory, durably.
pub(super) fn create_root(disk: &dyn Disk, root: &Path) -> Result<(), QueuesError> {
    disk.create_dir_all(root).map_err(QueuesError::io(root, "create"))?;
    match root.parent() {
        Some(parent) => disk.sync_dir(parent).map_err(QueuesError::io(parent, "sync the directory")),
        None => Ok(()),
    }
}

/// Removes the directories of queues that are not in `at`.
pub(super) fn remove_unknown(disk: &dyn Disk, root: &Path, at: &QueueCounters) -> Result<(), QueuesError> {
    for topic_dir in list(disk, root)? {
        let topic = topic_dir.file_name().and_then(|name| name.to_str());
        let mut known = 0;
        for queue_dir in list_or_remove(disk, &topic_dir)?.unwrap_or_default() {
            let (Some(topic), Some(queue)) = (topic, parse_queue(&queue_dir)) else {
                remove(disk, &queue_dir)?;
                continue;
            };
            if at.get(topic, queue) == 0 {
                remove(disk, &queue_dir)?;
            } else {
                known += 1;
            }
        }
        if known == 0 && exists(disk, &topic_dir)? {
            remove(disk, &topic_dir)?;
        }
    }
    Ok(())
}

/// Checks that a queue's files hold `min..next`, removes everything else from them, and returns their directory.
pub(super) fn recover_queue(
    disk: &dyn Disk,
    root: &Path,
    (topic, queue): (&str, u32),
    min: u64,
    next: u64,
) -> Result<PathBuf, QueuesError> {
    let dir = root.join(topic).join(queue.to_string());
    if next > OFFSET_MAX || !topic_is_storable(topic.as_bytes()) {
        return Err(QueuesError::rebuild(dir, "the checkpoint names an impossible queue or offset"));
    }
    let wanted = if min < next { base_of(min)..base_of(next - 1) + 1 } else { 0..0 };
    if exists(disk, &dir)? {
        for path in list_or_remove(disk, &dir)?.unwrap_or_default() {
            if !parse_base(&path).is_some_and(|base| wanted.contains(&base)) {
                remove(disk, &path)?;
            }
        }
    }
    for base in wanted.step_by(FILE_BYTES as usize) {
        check_file(disk, &file_path(&dir, base), Seed::of(topic, queue), next.min(end_of(base)))?;
    }
    Ok(dir)
}

/// Checks that a file reaches `end`, and cuts off what is behind. Of the units only the last is looked at; the others are
/// when they are read.
fn check_file(disk: &dyn Disk, path: &Path, seed: Seed, end: u64) -> Result<(), QueuesError> {
    let unreadable = |error: io::Error| QueuesError::rebuild(path, format!("it cannot be read: {error}"));
    let last = place_of(end - 1);
    let bytes = last + UNIT_BYTES as u64;
    let file = disk.open(path, OpenMode::ReadWrite).map_err(unreadable)?;
    let length = file.len().map_err(unreadable)?;
    if length < bytes {
        return Err(QueuesError::rebuild(
            path,
            format!("it has {length} bytes where the checkpoint says {bytes}"),
        ));
    }
    let mut unit = [0; UNIT_BYTES];
    let read = file.read_at(&mut unit, last).map_err(unreadable)?;
    if read < UNIT_BYTES || Unit::decode(&unit, seed, end - 1).is_none() {
        return Err(QueuesError::rebuild(path, format!("the unit of offset {} is not there", end - 1)));
    }
    if length > bytes {
        file.set_len(bytes).map_err(QueuesError::io(path, "cut"))?;
    }
    Ok(())
}

/// A directory's number as a queue, written as we write it.
fn parse_queue(dir: &Path) -> Option<u32> {
    let name = dir.file_name()?.to_str()?;
    let queue: u32 = name.parse().ok()?;
    (queue.to_string() == name).then_some(queue)
}

pub(super) fn exists(disk: &dyn Disk, path: &Path) -> Result<bool, QueuesError> {
    disk.exists(path).map_err(QueuesError::io(path, "look for"))
}

fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>, QueuesError> {
    disk.list(dir).map_err(|error| QueuesError::rebuild(dir, format!("it cannot be listed: {error}")))
}

/// Lists a directory; a file in its place is removed, and gives `None`.
fn list_or_remove(disk: &dyn Disk, dir: &Path) -> Result<Option<Vec<PathBuf>>, QueuesError> {
    match disk.list(dir) {
        Ok(paths) => Ok(Some(paths)),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            disk.remove(dir).map_err(QueuesError::io(dir, "remove"))?;
            Ok(None)
        }
        Err(error) => Err(QueuesError::rebuild(dir, format!("it cannot be listed: {error}"))),
    }
}

/// Removes what need not be there.
pub(super) fn remove_if_there(disk: &dyn Disk, path: &Path) -> Result<(), QueuesError> {
    if exists(disk, path)? { remove(disk, path) } else { Ok(()) }
}

/// Removes a file, or a directory with everything in it.
pub(super) fn remove(disk: &dyn Disk, path: &Path) -> Result<(), QueuesError> {
    if list_or_remove(disk, path)?.is_some() {
        disk.remove_dir_all(path).map_err(QueuesError::io(path, "remove"))?;
    }
    Ok(())
}
