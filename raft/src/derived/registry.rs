//! Which derived structures a node has, besides the consume queues: the one place that names them.

use std::path::Path;
use std::sync::Arc;

use folio_engine::derived::{Derived, DerivedError, LogPoint};
use folio_engine::disk::Disk;
use folio_engine::keys::{DerivedKeys, KeyIndex};
use folio_engine::log::StampBase;

/// A structure, and the point of the log up to which it is built.
pub(crate) struct Registered {
    pub(crate) structure: Box<dyn Derived>,
    pub(crate) at: LogPoint,
}

/// The structures, for readers.
pub(crate) struct Indexes {
    pub(crate) keys: KeyIndex,
}

/// Opens them, in the order in which records are applied to them. The log begins at `begin`, in segments of so many bytes.
/// Blocks on the disk.
pub(crate) fn open(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    segment_bytes: u64,
    begin: &StampBase,
) -> Result<(Indexes, Vec<Registered>), DerivedError> {
    let first = LogPoint::from(begin).next_index();
    let (keys, at) = KeyIndex::open(disk.clone(), dir, segment_bytes, first)?;
    let registered = vec![Registered { structure: Box::new(DerivedKeys::new(keys.clone())), at }];
    Ok((Indexes { keys }, registered))
}
