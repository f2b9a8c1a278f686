//! Which files of the directory are runs of one unbroken stretch of the log; all others go.

use std::path::{Path, PathBuf};

use super::error::KeysError;
use super::run::{Run, RunId, parse_name};
use crate::disk::{Disk, create_dir};

/// Opens the runs below `dir`, the earliest first: each begins where the one before ends, and the first one not behind
/// entry `begin`, with which the log begins. A missing directory is made.
pub(super) fn open(disk: &dyn Disk, dir: &Path, begin: u64) -> Result<Vec<Run>, KeysError> {
    create_dir(disk, dir).map_err(KeysError::io(dir, "create"))?;
    let listed = disk.list(dir).map_err(KeysError::io(dir, "list"))?;
    let (named, foreign): (Vec<_>, Vec<_>) = listed.into_iter().partition(|path| parse_name(path).is_some());
    let mut named: Vec<(RunId, PathBuf)> =
        named.into_iter().filter_map(|path| Some((parse_name(&path)?, path))).collect();
    // Of those that begin together, a merged one holds the others.
    named.sort_by_key(|((from, to), _)| (*from, std::cmp::Reverse(*to)));
    let (mut runs, mut gone) = (Vec::<Run>::new(), foreign);
    for (id, path) in named {
        match next(disk, runs.last(), (id, &path), begin) {
            Some(run) => runs.push(run),
            None => gone.push(path),
        }
    }
    // Backwards: what a crash leaves of them is an unbroken stretch again.
    for path in gone.iter().rev() {
        tracing::debug!(path = %path.display(), "not a run that is needed");
        remove(disk, path)?;
    }
    Ok(runs)
}

/// The run if it goes on where the last one ends. None behind a gap, of another history, when it cannot be read, and when
/// the last one has all of it.
fn next(disk: &dyn Disk, last: Option<&Run>, ((from, _), path): (RunId, &Path), begin: u64) -> Option<Run> {
    if !last.map_or(from <= begin, |last| from == last.id().1) {
        return None;
    }
    let opened = Run::open(disk, path);
    let run =
        opened.inspect_err(|error| tracing::warn!(%error, "a run of the key index is not read")).ok()??;
    last.is_none_or(|last| run.header.from.crc == last.header.to.crc).then_some(run)
}

/// Removes a file or a directory; it may be gone already.
pub(super) fn remove(disk: &dyn Disk, path: &Path) -> Result<(), KeysError> {
    let removed = match disk.list(path) {
        Ok(_) => disk.remove_dir_all(path),
        Err(_) => disk.remove(path),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(KeysError::io(path, "remove")(error))
        }
        _ => Ok(()),
    }
}
