//! The floor's log, of either kind:
//!
//! - a ring: a file of zeros, written round and round, so that no metadata ever changes and the page cache holds it
//!   from the start. The least a disk can be asked for;
//! - growing: reserved ahead and written on and on, as every log is that keeps what it was given. Each byte meets a
//!   page that was not in the cache, which some machines make dear (a virtual one that gives unused memory back).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use clap::ValueEnum;
use rustix::fs::{FallocateFlags, fallocate};

const RING_BYTES: u64 = 256 << 20;
const CHUNK_BYTES: usize = 1 << 20;
/// A growing log begins anew here: a disk is not endless.
const GROWN_BYTES_MAX: u64 = 2 << 30;

/// Which kind of log; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Written round and round.
    Ring,
    /// Written on and on.
    Growing,
}

pub(super) struct Log {
    file: File,
    kind: Kind,
    /// Where the next byte goes, and how far the file is reserved.
    at: u64,
    reserved: u64,
    /// Bytes appended in all.
    end: u64,
}

impl Log {
    pub(super) fn create(folder: &Path, kind: Kind) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join("log");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        if kind == Kind::Ring {
            let zeros = vec![0; CHUNK_BYTES];
            for at in (0..RING_BYTES).step_by(CHUNK_BYTES) {
                file.write_all_at(&zeros, at)?;
            }
            file.sync_all()?;
        }
        Ok(Self { file, kind, at: 0, reserved: 0, end: 0 })
    }

    /// Writes and syncs: how many bytes are durable in all.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<u64> {
        match self.kind {
            Kind::Ring => self.write_round(bytes)?,
            Kind::Growing => self.write_on(bytes)?,
        }
        self.file.sync_data()?;
        self.end += bytes.len() as u64;
        Ok(self.end)
    }

    fn write_round(&mut self, bytes: &[u8]) -> io::Result<()> {
        let at = self.end % RING_BYTES;
        let room = usize::try_from(RING_BYTES - at).map_or(bytes.len(), |room| room.min(bytes.len()));
        self.file.write_all_at(&bytes[..room], at)?;
        self.file.write_all_at(&bytes[room..], 0)
    }

    fn write_on(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.at + bytes.len() as u64 > self.reserved {
            if self.reserved >= GROWN_BYTES_MAX {
                self.file.set_len(0)?;
                (self.at, self.reserved) = (0, 0);
            }
            fallocate(&self.file, FallocateFlags::empty(), self.reserved, RING_BYTES)?;
            self.reserved += RING_BYTES;
        }
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}
