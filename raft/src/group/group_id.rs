//! Which group a data directory belongs to: names can be used twice, a random number cannot.
//!
//! The founder draws the id and has every member store it before the first entry exists. A node whose disk is empty learns
//! the id from the members that it asks about themselves, and stores it before it takes anything from them. Every hello
//! between peers carries the id, and a peer with another one is refused.
//!
//! File `group-id`: 32 hex digits, a space, the same digits again, a line feed. A directory that was written before there were ids has a log and no such file. Its id is derived from the names of cluster and group, so
//! that all members of a group come to the same one without talking.
//!
//! - `group_id.I1`: a node whose log has an entry has an id, and it never changes.
//! - `group_id.I2`: nodes with different ids exchange nothing but the sentence that says so.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use folio_engine::disk::{Disk, OpenMode, write_atomically};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

const FILE: &str = "group-id";
/// Bytes of the file.
const FILE_BYTES: usize = 32 + 1 + 32 + 1;

/// The id of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct GroupId([u64; 2]);

impl GroupId {
    /// A new one.
    pub(crate) fn random() -> GroupId {
        GroupId([RandomState::new().hash_one("high"), RandomState::new().hash_one("low")])
    }

    /// The id of a group that was founded before groups had ids: FNV-1a of the names, 128 bits.
    fn derived(cluster: &str, group: &str) -> GroupId {
        const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        let bytes = cluster.bytes().chain([0]).chain(group.bytes());
        let hash = bytes.fold(BASIS, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
        GroupId([(hash >> 64) as u64, hash as u64])
    }

    fn parse(text: &[u8]) -> Option<GroupId> {
        let text =
            std::str::from_utf8(text).ok().filter(|text| text.len() == FILE_BYTES && text.is_ascii())?;
        let part = |from: usize| u64::from_str_radix(&text[from..from + 16], 16).ok();
        let id = GroupId([part(0)?, part(16)?]);
        (id.to_file() == text).then_some(id)
    }

    fn to_file(self) -> String {
        let digits = self.to_string();
        format!("{digits} {digits}\n")
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.0[0], self.0[1])
    }
}

/// The id that this node's data directory has, if it has one yet.
pub(crate) struct GroupIdFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    id: Mutex<Option<GroupId>>,
}

impl GroupIdFile {
    /// Reads the id. A directory with a log and no id gets the derived one, durably (`group_id.I1`).
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        data_dir: &Path,
        names: (&str, &str),
        log_is_empty: bool,
    ) -> io::Result<GroupIdFile> {
        let path = data_dir.join(FILE);
        let found = if disk.exists(&path)? { Some(read(&*disk, &path)?) } else { None };
        let file = GroupIdFile { disk, path, id: Mutex::new(found) };
        if found.is_none() && !log_is_empty {
            file.store(GroupId::derived(names.0, names.1))?;
        }
        Ok(file)
    }

    /// The id, once it is known; it is durable then.
    pub(crate) fn get(&self) -> Option<GroupId> {
        *self.id.lock()
    }

    /// Takes the id of the group that this node belongs to.
    pub(crate) fn adopt(&self, id: GroupId) -> io::Result<()> {
        match self.get() {
            Some(own) if own == id => Ok(()),
            Some(own) => Err(io::Error::other(other_group(own, id))),
            None => self.store(id),
        }
    }

    /// Takes the id of a group that is being founded, in the place of one whose founding came to nothing. Only for a node
    /// without any entry.
    pub(crate) fn store(&self, id: GroupId) -> io::Result<()> {
        let mut own = self.id.lock();
        if *own != Some(id) {
            write_atomically(&*self.disk, &self.path, id.to_file().as_bytes())?;
            *own = Some(id);
        }
        Ok(())
    }

    /// Forgets the id of a founding that came to nothing. Only for a node without any entry.
    pub(crate) fn forget(&self) -> io::Result<()> {
        let mut own = self.id.lock();
        if own.take().is_some() {
            self.disk.remove(&self.path)?;
            if let Some(dir) = self.path.parent() {
                self.disk.sync_dir(dir)?;
            }
        }
        Ok(())
    }
}

/// What a peer with another id is told.
pub(crate) fn other_group(here: GroupId, there: GroupId) -> String {
    format!(
        "this node belongs to the group with id {here}, the peer to another group of the same name, with id {there}: \
         one of the two was founded by mistake"
    )
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<GroupId> {
    let file = disk.open(path, OpenMode::Read)?;
    let mut bytes = [0; FILE_BYTES + 1];
    let read = file.read_at(&mut bytes, 0)?;
    GroupId::parse(&bytes[..read]).ok_or_else(|| {
        io::Error::other(format!(
            "{} is damaged: it says which group this directory belongs to; copy the file from another member of the group, or, \
             if no member has one, remove it",
            path.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use folio_engine::disk::RealDisk;

    fn open(dir: &Path, log_is_empty: bool) -> io::Result<GroupIdFile> {
        GroupIdFile::open(Arc::new(RealDisk), dir, ("c", "g"), log_is_empty)
    }

    #[test]
    fn group_id_i1_a_directory_from_before_ids_gets_the_one_that_its_peers_derive_too() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let id = open(one.path(), false).unwrap().get();
        assert!(id.is_some());
        assert_eq!(open(two.path(), false).unwrap().get(), id);
        assert_ne!(Some(GroupId::derived("cg", "")), id);
        // Golden: an upgraded node must come to it for ever.
        assert_eq!(GroupId::derived("c", "g").to_string(), GOLDEN);
        assert_eq!(open(two.path(), true).unwrap().get(), id, "it is on the disk");
    }

    const GOLDEN: &str = "a68d6c2a528b5822836dbc797bf84483";

    #[test]
    fn an_id_is_adopted_once_and_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let file = open(dir.path(), true).unwrap();
        assert_eq!(file.get(), None);
        let (id, other) = (GroupId::random(), GroupId::random());
        assert_ne!(id, other);
        file.adopt(id).unwrap();
        assert!(file.adopt(other).unwrap_err().to_string().contains(&other.to_string()));
        assert_eq!(open(dir.path(), true).unwrap().get(), Some(id));
        file.forget().unwrap();
        assert_eq!(open(dir.path(), true).unwrap().get(), None);
    }

    #[test]
    fn a_damaged_id_is_refused_by_the_files_name() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), true).unwrap().adopt(GroupId::random()).unwrap();
        let path = dir.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut rotten = whole.clone();
            rotten[at] ^= 1;
            std::fs::write(&path, &rotten).unwrap();
            let error = open(dir.path(), false).map(drop).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(open(dir.path(), false).is_err(), "cut at {at}");
        }
    }
}
