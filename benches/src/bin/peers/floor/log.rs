//! The floor's log: a file of zeros, written round and round, so that no metadata ever changes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const RING_BYTES: u64 = 256 << 20;
const CHUNK_BYTES: usize = 1 << 20;

pub(super) struct Log {
    file: File,
    end: u64,
}

impl Log {
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join("log");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        let zeros = vec![0; CHUNK_BYTES];
        for at in (0..RING_BYTES).step_by(CHUNK_BYTES) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        Ok(Self { file, end: 0 })
    }

    /// Writes and syncs: how many bytes are durable in all.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.end % RING_BYTES;
        let room = usize::try_from(RING_BYTES - at).map_or(bytes.len(), |room| room.min(bytes.len()));
        self.file.write_all_at(&bytes[..room], at)?;
        self.file.write_all_at(&bytes[room..], 0)?;
        self.file.sync_data()?;
        self.end += bytes.len() as u64;
        Ok(self.end)
    }
}
