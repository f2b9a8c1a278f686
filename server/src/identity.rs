//! Whose data directory this is. A directory of another node, first group or cluster, or one that another
//! process uses, is refused by name before anything in it is touched.
//!
//! File `identity` (TOML): `cluster`, `group`, `node_id`, `segment_bytes`; written once. File `LOCK`:
//! locked while the node runs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use folio_engine::disk::{Disk, DiskLock, OpenMode, create_dir, temporary_beside, write_atomically};
use serde::{Deserialize, Serialize};

use crate::config::{ByteSize, NodeConfig};

const FILE: &str = "identity";
const LOCK: &str = "LOCK";
/// An identity is a few lines.
const BYTES_MAX: u64 = 64 * 1024;

/// Whose directory it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    cluster: String,
    group: String,
    node_id: u64,
    segment_bytes: u64,
}

/// Why a data directory is refused. Refused: the operator can mend it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    /// Another process has it.
    #[error("the data directory {} is in use by another process (its file LOCK is held)", .0.display())]
    InUse(PathBuf),
    /// It belongs to something else.
    #[error(
        "the data directory {} belongs to {key} {found}, the configuration says {key} {configured}: \
         point `data_dir` at another directory, or mend `{key}`",
        .dir.display()
    )]
    Other {
        /// The directory.
        dir: PathBuf,
        /// The configuration's key.
        key: &'static str,
        /// What the directory says.
        found: String,
        /// What the configuration says.
        configured: String,
    },
    /// The identity file is not one.
    #[error(
        "{} is damaged: {reason}; it says whose the directory is (cluster, group, node_id, segment_bytes): if you are sure \
         that it is this node's, remove the file and start again",
        .file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// The directory cannot be used.
    #[error("cannot use the data directory {}: {source}", .dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Takes the data directory for this node; it is the node's while the lock is held.
pub(crate) fn claim(disk: &Arc<dyn Disk>, config: &NodeConfig) -> Result<DiskLock, IdentityError> {
    let dir = &config.data_dir;
    let fail = |source| IdentityError::Io { dir: dir.clone(), source };
    create_dir(&**disk, dir).map_err(fail)?;
    let lock = disk.lock(&dir.join(LOCK)).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => IdentityError::InUse(dir.clone()),
        _ => fail(error),
    })?;
    let own = Owner {
        cluster: config.cluster.clone(),
        group: config.group.clone(),
        node_id: config.node_id,
        segment_bytes: config.segment_bytes,
    };
    let file = dir.join(FILE);
    if disk.exists(&file).map_err(fail)? {
        compare(dir, &read(&**disk, &file)?, &own)?;
    } else {
        let text = toml::to_string(&own).map_err(|error| fail(io::Error::other(error)))?;
        write_atomically(&**disk, &file, text.as_bytes()).map_err(fail)?;
    }
    Ok(lock)
}

/// What a data directory holds of its node.
pub(crate) fn names(config: &NodeConfig) -> Vec<PathBuf> {
    let files = [FILE.into(), temporary_beside(FILE.as_ref()), LOCK.into()];
    let groups = config.group_configs().into_iter().map(|group| group.group.into());
    files.into_iter().chain(groups).collect()
}

fn read(disk: &dyn Disk, path: &Path) -> Result<Owner, IdentityError> {
    let damaged = |reason: String| IdentityError::Damaged { file: path.to_owned(), reason };
    let text = || -> io::Result<String> {
        let file = disk.open(path, OpenMode::Read)?;
        let len = file.len()?.min(BYTES_MAX);
        let mut bytes = vec![0; len as usize];
        let read = file.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        String::from_utf8(bytes).map_err(io::Error::other)
    };
    let text = text().map_err(|error| damaged(error.to_string()))?;
    toml::from_str(&text).map_err(|error| damaged(error.to_string()))
}

fn compare(dir: &Path, found: &Owner, own: &Owner) -> Result<(), IdentityError> {
    let size = |bytes| ByteSize(bytes).to_string();
    let keys = [
        ("cluster", found.cluster.clone(), own.cluster.clone()),
        ("group", found.group.clone(), own.group.clone()),
        ("node_id", found.node_id.to_string(), own.node_id.to_string()),
        ("log.segment_size", size(found.segment_bytes), size(own.segment_bytes)),
    ];
    let other = keys.into_iter().find(|(_, found, own)| found != own);
    other.map_or(Ok(()), |(key, found, configured)| {
        Err(IdentityError::Other { dir: dir.to_owned(), key, found, configured })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use folio_engine::disk::RealDisk;

    fn config(dir: &Path) -> NodeConfig {
        let file = dir.join("node.toml");
        let text = crate::config::EXAMPLE.replace("/var/lib/folio", &dir.join("data").display().to_string());
        std::fs::write(&file, text).unwrap();
        NodeConfig::read(&file).unwrap()
    }

    #[test]
    fn a_directory_is_its_nodes_and_no_other_ones() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let config = config(dir.path());
        let lock = claim(&disk, &config).unwrap();
        let error = claim(&disk, &config).map(drop).unwrap_err().to_string();
        assert!(error.contains("in use by another process"), "{error}");
        drop(lock);
        drop(claim(&disk, &config).unwrap());
        let file = config.data_dir.join(FILE);
        let whole = std::fs::read(&file).unwrap();
        for length in 0..whole.len() - 1 {
            std::fs::write(&file, &whole[..length]).unwrap();
            let error = claim(&disk, &config).map(drop).unwrap_err().to_string();
            let named = error.contains(file.to_str().unwrap()) || error.contains("log.segment_size");
            assert!(named, "cut at {length}: {error}");
            std::fs::write(&file, [&whole[..length], &[whole[length] ^ 1], &whole[length + 1..]].concat())
                .unwrap();
            assert!(
                claim(&disk, &config).is_err() || whole[length].is_ascii_whitespace(),
                "flip at {length}"
            );
            std::fs::write(&file, vec![0; whole.len()]).unwrap();
            assert!(claim(&disk, &config).is_err(), "zeros");
        }
        std::fs::write(&file, &whole).unwrap();
        let other = NodeConfig { node_id: 2, ..config.clone() };
        let error = claim(&disk, &other).map(drop).unwrap_err().to_string();
        assert!(error.contains("belongs to node_id 1, the configuration says node_id 2"), "{error}");
        let other = NodeConfig { cluster: "another".to_owned(), ..config.clone() };
        let error = claim(&disk, &other).map(drop).unwrap_err().to_string();
        assert!(error.contains("cluster DefaultCluster"), "{error}");
    }
}
