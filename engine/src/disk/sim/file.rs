//! An open file of a simulated disk.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::super::{DiskFile, OpenMode};
use super::operation::{Fault, Operation};
use super::state::State;

/// How often a sync looks whether the disk still hangs.
const HANG_POLL: Duration = Duration::from_millis(1);

pub(super) struct SimFile {
    state: Arc<Mutex<State>>,
    file: u64,
    path: PathBuf,
    writable: bool,
}

impl SimFile {
    /// `state` is the locked state of `shared`.
    pub(super) fn new(
        shared: &Arc<Mutex<State>>,
        state: &mut State,
        file: u64,
        path: &Path,
        mode: OpenMode,
    ) -> SimFile {
        state.content(file).handles += 1;
        SimFile { state: shared.clone(), file, path: path.into(), writable: mode != OpenMode::Read }
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} is open to read", self.path.display()),
        ))
    }

    fn sync(&self) -> io::Result<()> {
        while self.state.lock().hanging {
            std::thread::sleep(HANG_POLL);
        }
        let mut state = self.state.lock();
        let fault = state.begin(Operation::Sync { path: self.path.clone() })?;
        match fault {
            Some(fault) => {
                state.content(self.file).fail_sync();
                Err(fault.error())
            }
            None if state.lying => Ok(()),
            None => {
                state.content(self.file).sync();
                Ok(())
            }
        }
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.state.lock();
        state.begin_read()?;
        Ok(state.content(self.file).live().len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state.lock();
        state.begin_read_of(self.file, offset, buf.len())?;
        Ok(state.content(self.file).live().read(buf, offset))
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut bytes = Vec::with_capacity(bufs.iter().map(|buf| buf.len()).sum());
        bufs.iter().for_each(|buf| bytes.extend_from_slice(buf));
        if bytes.is_empty() {
            return Ok(());
        }
        offset.checked_add(bytes.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        let mut state = self.state.lock();
        let operation = Operation::Write { path: self.path.clone(), offset, bytes: bytes.len() };
        match state.begin(operation)? {
            Some(Fault::ShortWrite) => {
                state.content(self.file).write(&bytes[..bytes.len() / 2], offset, u64::MAX);
                return Err(Fault::ShortWrite.error());
            }
            Some(fault) => return Err(fault.error()),
            None => {}
        }
        state.overwrite(self.file, offset, bytes.len())?;
        let free = state.free_pages();
        let written = state.content(self.file).write(&bytes, offset, free);
        if written < bytes.len() { Err(Fault::Enospc.error()) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.state.lock();
        if state.content(self.file).is_allocated(bytes) {
            return Ok(());
        }
        if let Some(fault) = state.begin(Operation::Allocate { path: self.path.clone(), bytes })? {
            return Err(fault.error());
        }
        let free = state.free_pages();
        if state.content(self.file).allocate(bytes, free) { Ok(()) } else { Err(Fault::Enospc.error()) }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.state.lock();
        if let Some(fault) = state.begin(Operation::SetLen { path: self.path.clone(), bytes })? {
            return Err(fault.error());
        }
        state.content(self.file).set_len(bytes);
        Ok(())
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        let content = state.content(self.file);
        content.handles = content.handles.saturating_sub(1);
    }
}
