//! What a node writes is its user's alone: a log holds what clients sent, and any local user could read it.
//!
//! It is made so: by the engine's disk (`disk.I4`), by `folio cluster` with the functions here, and for all else by the
//! process's mask ([`mask`]). What an earlier version made for everybody is tightened at the start ([`tighten`]).
//!
//! - `private.I1`: files and folders that a node has made are read and written by its user alone.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::Mode;

/// A folder of its user alone.
const DIR_MODE: u32 = 0o700;
/// A file of its user alone.
pub const FILE_MODE: u32 = 0o600;
/// What others may do.
const OTHERS: u32 = 0o077;
/// What a file system keeps in its own root, readable by its owner alone.
const LOST_AND_FOUND: &str = "lost+found";

/// From now on nothing that this process makes is anybody else's, whichever code makes it.
pub fn mask() {
    rustix::process::umask(Mode::from_raw_mode(OTHERS));
}

/// Makes a folder, and its parents.
pub fn create_dir_all(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)
}

/// Writes a file, over what was there.
pub fn write(file: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(FILE_MODE).open(file)?.write_all(text.as_bytes())
}

/// Takes from others what they may do with a folder of ours. `own`: the names in it that are ours, with all below them. A
/// folder in which something else lies is not ours to close: then, and where it fails, a line in the log says so.
pub fn tighten(dir: &Path, own: &[impl AsRef<OsStr>]) {
    match try_tighten(dir, own) {
        Ok(true) => {}
        Ok(false) => tracing::warn!(
            "other users of this machine can list {}: it holds files that are not this node's, so it is left as it is",
            dir.display()
        ),
        Err(error) => tracing::warn!(
            "other users of this machine may read the data in {}: its permissions cannot be changed: {error}",
            dir.display()
        ),
    }
}

/// False if the folder holds what is not ours.
fn try_tighten(dir: &Path, own: &[impl AsRef<OsStr>]) -> io::Result<bool> {
    if mode_of(&fs::metadata(dir)?) & OTHERS == 0 {
        // Nobody gets to what lies below.
        return Ok(true);
    }
    let mut all_own = true;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if own.iter().any(|own| own.as_ref() == name) {
            tighten_all(&entry.path())?;
        } else {
            all_own &= name == LOST_AND_FOUND;
        }
    }
    // Last: a start that ends before goes on at the next one.
    if all_own {
        fs::set_permissions(dir, Permissions::from_mode(DIR_MODE))?;
    }
    Ok(all_own)
}

/// A file, or a folder with all below it. Links lead to what may not be ours.
fn tighten_all(path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        return Ok(());
    }
    if metadata.is_dir() {
        fs::read_dir(path)?.try_for_each(|entry| tighten_all(&entry?.path()))?;
    }
    match mode_of(&metadata) {
        mode if mode & OTHERS == 0 => Ok(()),
        mode => fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS)),
    }
}

fn mode_of(metadata: &fs::Metadata) -> u32 {
    metadata.permissions().mode() & 0o7777
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("group/commitlog")).unwrap();
        for file in ["identity", "group/vote", "group/commitlog/0"] {
            fs::write(dir.path().join(file), "x").unwrap();
            fs::set_permissions(dir.path().join(file), Permissions::from_mode(0o644)).unwrap();
        }
        for folder in ["", "group", "group/commitlog"] {
            fs::set_permissions(dir.path().join(folder), Permissions::from_mode(0o755)).unwrap();
        }
        dir
    }

    fn mode(dir: &Path, name: &str) -> u32 {
        mode_of(&fs::symlink_metadata(dir.join(name)).unwrap())
    }

    #[test]
    fn private_i1_what_an_earlier_version_made_for_everybody_is_tightened() {
        let dir = open_tree();
        assert!(try_tighten(dir.path(), &["identity", "group"]).unwrap());
        for file in ["identity", "group/vote", "group/commitlog/0"] {
            assert_eq!(mode(dir.path(), file), 0o600, "{file}");
        }
        for folder in ["", "group", "group/commitlog"] {
            assert_eq!(mode(dir.path(), folder), 0o700, "{folder}");
        }
    }

    #[test]
    fn what_is_not_the_nodes_is_left_alone() {
        let (dir, elsewhere) = (open_tree(), open_tree());
        fs::write(dir.path().join("notes"), "an operator's").unwrap();
        fs::set_permissions(dir.path().join("notes"), Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("group/link")).unwrap();
        assert!(!try_tighten(dir.path(), &["identity", "group"]).unwrap());
        assert_eq!([mode(dir.path(), "notes"), mode(dir.path(), "")], [0o644, 0o755]);
        assert_eq!([mode(dir.path(), "identity"), mode(dir.path(), "group/vote")], [0o600, 0o600]);
        assert_eq!([mode(elsewhere.path(), ""), mode(elsewhere.path(), "identity")], [0o755, 0o644]);
    }

    #[test]
    fn what_is_written_here_is_private_whatever_the_mask() {
        let dir = tempfile::tempdir().unwrap();
        create_dir_all(&dir.path().join("a/b")).unwrap();
        write(&dir.path().join("a/b/c"), "one").unwrap();
        write(&dir.path().join("a/b/c"), "2").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("a/b/c")).unwrap(), "2");
        assert_eq!(
            [mode(dir.path(), "a"), mode(dir.path(), "a/b"), mode(dir.path(), "a/b/c")],
            [0o700, 0o700, 0o600]
        );
    }
}
