//! What is recorded of each operation, and the faults an operation can be made to have.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// One operation that changes the disk, or makes a change durable. Reads are not recorded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the fields are what their names say")]
pub enum Operation {
    /// A directory was created.
    CreateDirectory { path: PathBuf },
    /// A file was created.
    Create { path: PathBuf },
    /// Bytes were written, with one call.
    Write { path: PathBuf, offset: u64, bytes: usize },
    /// A file was synced.
    Sync { path: PathBuf },
    /// Space was reserved.
    Allocate { path: PathBuf, bytes: u64 },
    /// A length was set.
    SetLen { path: PathBuf, bytes: u64 },
    /// A file, or an empty directory, was removed.
    Remove { path: PathBuf },
    /// A file or directory was renamed.
    Rename { from: PathBuf, to: PathBuf },
    /// A directory was synced.
    SyncDirectory { path: PathBuf },
}

impl Operation {
    /// What it changes; of a rename, the name it takes away.
    pub(super) fn path(&self) -> &Path {
        match self {
            Operation::CreateDirectory { path }
            | Operation::Create { path }
            | Operation::Write { path, .. }
            | Operation::Sync { path }
            | Operation::Allocate { path, .. }
            | Operation::SetLen { path, .. }
            | Operation::Remove { path }
            | Operation::Rename { from: path, .. }
            | Operation::SyncDirectory { path } => path,
        }
    }
}

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// EIO; nothing happens. As the fault of a sync it is [`Fault::FailSync`].
    Eio,
    /// ENOSPC; nothing happens. As the fault of a sync it gives the bytes up like [`Fault::FailSync`].
    Enospc,
    /// Half of a write happens, then the disk is full. Other operations do not have this fault.
    ShortWrite,
    /// A sync of a file or directory fails with EIO. A file's unsynced bytes stay readable, and no later sync makes
    /// them durable. Other operations do not have this fault.
    FailSync,
}

impl Fault {
    pub(super) fn strikes(self, operation: &Operation) -> bool {
        match self {
            Fault::Eio | Fault::Enospc => true,
            Fault::ShortWrite => matches!(operation, Operation::Write { .. }),
            Fault::FailSync => matches!(operation, Operation::Sync { .. } | Operation::SyncDirectory { .. }),
        }
    }

    pub(super) fn error(self) -> io::Error {
        let number = match self {
            Fault::Eio | Fault::FailSync => Errno::IO,
            Fault::Enospc | Fault::ShortWrite => Errno::NOSPC,
        };
        number.into()
    }
}
