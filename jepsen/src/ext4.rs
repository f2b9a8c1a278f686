//! A small ext4 of its own for a node, in a file: what a full disk does there, no model of one knows for sure.
//!
//! On ext4 a reservation that fails keeps every block it got, and each file's growth takes blocks for its own
//! description too. It takes root, `mkfs.ext4`, `mount` and a loop device.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::mount::{UnmountFlags, unmount};

/// What another program is taken to have written there.
const BALLAST: &str = "ballast";
/// The least that is reserved at once.
const CHUNK_MIN: u64 = 4096;

/// A mounted file system; unmounted when dropped, its image stays.
pub struct Ext4 {
    at: PathBuf,
}

/// Whether there can be one here.
///
/// # Errors
/// With the reason why not.
pub fn check() -> std::result::Result<(), String> {
    let dir = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
    let made = Ext4::mount(&dir.path().join("image"), &dir.path().join("at"), 16 << 20);
    made.map(drop).map_err(|error| format!("{error:#}"))
}

impl Ext4 {
    /// Makes a file system of so many bytes in the file `image` and mounts it at `at`.
    ///
    /// # Errors
    /// When this process may not, or a program is missing.
    pub fn mount(image: &Path, at: &Path, bytes: u64) -> Result<Self> {
        std::fs::create_dir_all(at).with_context(|| format!("create {}", at.display()))?;
        let made = File::create(image).and_then(|file| file.set_len(bytes));
        made.with_context(|| format!("create {}", image.display()))?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(image))?;
        run(Command::new("mount").args(["-t", "ext4", "-o", "loop"]).arg(image).arg(at))?;
        let mounted = Self { at: at.to_owned() };
        // An empty disk has no folder of its own.
        std::fs::remove_dir(at.join("lost+found")).context("remove lost+found")?;
        Ok(mounted)
    }

    /// Bytes that still fit.
    ///
    /// # Errors
    /// When the file system does not say.
    pub fn free(&self) -> Result<u64> {
        let told = statvfs(&self.at).with_context(|| format!("ask {} for its space", self.at.display()))?;
        Ok(told.f_bavail * told.f_frsize)
    }

    /// Has another program's file take all but about `leave` bytes.
    ///
    /// # Errors
    /// When that file cannot be written for another reason than a full disk.
    pub fn fill(&self, leave: u64) -> Result<()> {
        let path = self.at.join(BALLAST);
        let file = OpenOptions::new().append(true).create(true).open(&path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        let mut chunk = self.free()?.saturating_sub(leave);
        while chunk >= CHUNK_MIN && self.free()? > leave {
            let len = file.metadata().with_context(|| format!("look at {}", path.display()))?.len();
            match fallocate(&file, FallocateFlags::empty(), len, chunk) {
                Ok(()) => chunk = chunk.min(self.free()?.saturating_sub(leave)),
                // The blocks that describe the file are not in what is free.
                Err(rustix::io::Errno::NOSPC) => chunk /= 2,
                Err(error) => return Err(error).with_context(|| format!("fill {}", path.display())),
            }
        }
        Ok(())
    }

    /// Removes the other program's file.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn give_back(&self) -> Result<()> {
        match std::fs::remove_file(self.at.join(BALLAST)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {BALLAST} in {}", self.at.display()))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.at, UnmountFlags::DETACH) {
            tracing::warn!(at = %self.at.display(), %error, "cannot unmount");
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("run {shown}"))?;
    ensure!(done.status.success(), "{shown}: {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_filled_disk_has_no_room_until_the_space_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("at");
        let disk = match Ext4::mount(&dir.path().join("image"), &at, 16 << 20) {
            Ok(disk) => disk,
            Err(error) => return eprintln!("skipped: a small ext4: {error:#}"),
        };
        disk.fill(1 << 20).unwrap();
        assert!((1 << 19..2 << 20).contains(&disk.free().unwrap()), "{:?}", disk.free());
        disk.fill(0).unwrap();
        let file = File::create(at.join("file")).unwrap();
        let refused = file.write_all_at(&[1; 64 << 10], 0).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull);
        disk.give_back().unwrap();
        file.write_all_at(&[1; 64 << 10], 0).unwrap();
        disk.give_back().unwrap();
    }
}
