//! A file system that forgets: a disk of ours under a node's data directory, to cut its power, fill
//! it, break it and slow it down without a machine to unplug.
//!
//! It is mounted by FUSE from inside this process (root and `/dev/fuse` are needed, no library and
//! no helper program). Bytes are on the disk once they were fsync'ed or fdatasync'ed, names once
//! their directory was fsync'ed; [`Disk::cut`] loses the rest, in whole or in parts. The promise is
//! POSIX's and no file system's: most real ones keep more, and one must not count on it.
//!
//! Sectors can be made unreadable ([`Disk::spoil`]): reading them fails with EIO until they are written again, as a
//! drive replaces a bad sector when it is written. A write that covers a sector in part replaces it too: a file system
//! on a real drive would have to read the rest of it first.
//!
//! What it is not: fast, or a place for links, devices or extended attributes.
//!
//! Invariants: lossy.I1: what was synced survives every power cut. lossy.I2: after a power cut
//! nothing comes out of a cache, because every file has a new inode. lossy.I3: the same seed and the
//! same operations lose the same bytes.

mod abort;
mod bad_sectors;
mod content;
mod error;
mod faults;
mod fuse;
mod loss;
mod names;
mod store;

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context, ensure};
use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};
use parking_lot::Mutex;

pub use faults::{Class, Failing, Faults, Hits};
pub use loss::{Loss, Losses};

use crate::nemesis::Dice;
use abort::Connection;
use content::PAGE;
use fuse::Mounted;
use store::Store;

/// A mounted disk; unmounted when dropped, its files are in the mount point's place then.
pub struct Disk {
    store: Arc<Mutex<Store>>,
    at: PathBuf,
    session: Option<BackgroundSession>,
    connection: Connection,
}

/// How long an unmounted disk may stay in use before its connection is aborted, and after.
const UNMOUNT_TIMEOUT: Duration = Duration::from_secs(3);

/// Whether such a file system can be mounted here.
///
/// # Errors
/// With the reason why not.
pub fn check() -> std::result::Result<(), String> {
    let dir = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
    let disk = Disk::mount(&dir.path().join("disk"), &dir.path().join("at"), 0);
    disk.map(drop).map_err(|error| format!("{error:#}"))
}

impl Disk {
    /// Mounts an empty disk at `at`, its synced bytes in files below `backing`.
    ///
    /// # Errors
    /// When this process may not mount, or there is no FUSE.
    pub fn mount(backing: &Path, at: &Path, seed: u64) -> anyhow::Result<Self> {
        for dir in [backing, at] {
            std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        }
        ensure!(Path::new("/dev/fuse").exists(), "there is no /dev/fuse");
        let store = Arc::new(Mutex::new(Store::new(backing)));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("folio-lossy".to_owned()), MountOption::NoDev];
        config.acl = SessionACL::Owner;
        let mounted = Mounted::new(Arc::clone(&store), Dice::new(seed));
        let session = Session::new(mounted, at, &config)
            .with_context(|| format!("mount a FUSE file system at {}; it takes root", at.display()))?;
        let session = session.spawn().context("start the file system's thread")?;
        let connection = Connection::of(at)?;
        Ok(Self { store, at: at.to_owned(), session: Some(session), connection })
    }

    /// The power went. The processes that used the disk must be dead: what they wrote and did not
    /// sync is gone as far as `loss` says, and what they still hold open is stale.
    ///
    /// # Errors
    /// When the backing files cannot be written.
    pub fn cut(&self, loss: Loss, dice: &mut Dice) -> anyhow::Result<Losses> {
        Ok(self.store.lock().cut(loss, dice)?)
    }

    /// Sets what is wrong with the disk from now on; with the default, nothing.
    pub fn set_faults(&self, faults: Faults) {
        self.store.lock().trouble.faults = faults;
    }

    /// How often its faults were met since it was mounted.
    #[must_use]
    pub fn hits(&self) -> Hits {
        self.store.lock().trouble.hits
    }

    /// Bytes of its files.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.store.lock().used()
    }

    fn unmount(&mut self) {
        let Some(session) = self.session.take() else { return };
        // On a thread of its own: a mount that another namespace holds keeps the session alive.
        let (done, ended) = mpsc::channel();
        std::thread::spawn(move || done.send(session.umount_and_join()));
        match ended.recv_timeout(UNMOUNT_TIMEOUT) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                // Somebody still holds a file; the mount point must be free all the same.
                tracing::debug!(at = %self.at.display(), %error, "unmounting later");
                if let Err(error) = rustix::mount::unmount(&self.at, rustix::mount::UnmountFlags::DETACH) {
                    tracing::warn!(at = %self.at.display(), %error, "cannot unmount");
                }
            }
            Err(_) => self.abort(&ended),
        }
        if let Err(error) = self.store.lock().move_to(&self.at) {
            tracing::warn!(at = %self.at.display(), %error, "the disk's files are not kept");
        }
    }
}

impl Disk {
    /// Ends the session of a disk that is unmounted here and still in use elsewhere.
    fn abort(&self, ended: &mpsc::Receiver<std::io::Result<()>>) {
        let at = self.at.display();
        tracing::warn!(
            %at,
            "the unmounted disk is still in use {UNMOUNT_TIMEOUT:?} later, perhaps by another mount namespace: \
             aborting its FUSE connection"
        );
        if let Err(error) = self.connection.abort() {
            tracing::warn!(%at, error = format!("{error:#}"), "cannot abort the FUSE connection");
        }
        if ended.recv_timeout(UNMOUNT_TIMEOUT).is_err() {
            tracing::warn!(%at, "the disk's thread does not end; it is left behind");
        }
    }

    /// Makes a stretch of a file unreadable, by its path below the mount, until it is written again.
    ///
    /// # Errors
    /// When there is no such file, or the kernel keeps what it has cached of it.
    pub fn spoil(&self, path: &Path, from: u64, count: u64) -> anyhow::Result<()> {
        let inode = self.store.lock().spoil(path, from, count)?;
        // The kernel has to ask for these pages again. The lock is free: it may ask at once.
        let (first, end) = (from / PAGE * PAGE, (from + count).div_ceil(PAGE) * PAGE);
        let session = self.session.as_ref().context("the disk is mounted")?;
        match session.notifier().inval_inode(fuser::INodeNo(inode), first as i64, (end - first) as i64) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("drop cached pages")
            }
            // A file the kernel knows nothing of has no page cached.
            _ => Ok(()),
        }
    }

    /// Bytes that cannot be read, in all files of that class.
    #[must_use]
    pub fn unreadable(&self, class: Class) -> u64 {
        self.store.lock().unreadable(class)
    }

    /// Everything can be read again.
    pub fn heal_reads(&self) {
        self.store.lock().heal_reads();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.unmount();
    }
}

#[cfg(test)]
mod tests;
