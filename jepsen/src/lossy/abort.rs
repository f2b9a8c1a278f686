//! The kernel's side of a FUSE mount, and how to end it.
//!
//! A mount namespace that is made while a disk is mounted (a sandbox, a container) has a copy of the mount. The
//! copy stays when ours is unmounted, and the thread that serves the file system waits for its requests. Aborting
//! the connection ends it for every copy: their requests fail from then on.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Where the kernel shows FUSE connections, if `fusectl` is mounted.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// A FUSE connection, by its number.
pub(super) struct Connection {
    number: u32,
}

impl Connection {
    /// The connection of the file system that is mounted at `at`.
    pub(super) fn of(at: &Path) -> Result<Self> {
        let found = rustix::fs::stat(at).with_context(|| format!("look at {}", at.display()))?;
        Ok(Self { number: rustix::fs::minor(found.st_dev) })
    }

    /// Ends the connection, whoever still holds a mount of it.
    pub(super) fn abort(&self) -> Result<()> {
        if self.switch(Path::new(CONNECTIONS)).exists() {
            return self.abort_below(Path::new(CONNECTIONS));
        }
        let own = tempfile::tempdir().context("a folder for fusectl")?;
        mount("fusectl", own.path(), "fusectl", MountFlags::empty(), None).context("mount fusectl")?;
        let aborted = self.abort_below(own.path());
        unmount(own.path(), UnmountFlags::DETACH).context("unmount fusectl")?;
        aborted
    }

    fn abort_below(&self, connections: &Path) -> Result<()> {
        let switch = self.switch(connections);
        std::fs::write(&switch, "1").with_context(|| format!("write {}", switch.display()))
    }

    fn switch(&self, connections: &Path) -> PathBuf {
        connections.join(self.number.to_string()).join("abort")
    }
}
