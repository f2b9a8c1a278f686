//! One `folio node` process: its ports, its folder, its life.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail, ensure};

mod config;

pub use self::config::Plan;
use self::config::SECRET_FILE;
pub use crate::addresses::Addresses;
use crate::clock::Clock;
use crate::ext4::Ext4;
use crate::lossy::Disk;
use crate::network::Network;

/// Its data folder, below its own one.
const DATA: &str = "data";
const SECRET: &[u8] = b"the nodes of a hunt have it in common\n";
/// Size of a node's small file system: twelve segments.
const EXT4_BYTES: u64 = 192 << 20;

/// A process that may run.
pub struct Node {
    /// Number in the group, from 1.
    pub id: u64,
    /// Where it listens.
    pub addresses: Addresses,
    dir: PathBuf,
    binary: PathBuf,
    child: Option<Child>,
    /// Its process may end by itself.
    excused: bool,
    /// Where it runs, and its place there.
    network: (Network, u64),
    /// Its own clock.
    clock: Option<Clock>,
    /// The lossy disk that is its data folder; goes after the process.
    disk: Option<Disk>,
    /// The small file system that is its data folder; goes after the process.
    ext4: Option<Ext4>,
}

impl Node {
    /// A node below `dir`, not running yet.
    ///
    /// # Errors
    /// When its folder or its configuration cannot be written.
    pub fn create(dir: &Path, binary: &Path, id: u64, plan: &Plan<'_>) -> Result<Self> {
        let dir = dir.join(format!("node-{id}"));
        std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let addresses = plan.network.addresses(plan.base_port, plan.place);
        let disk =
            plan.needs.lossy.then(|| Disk::mount(&dir.join("disk"), &dir.join(DATA), id)).transpose()?;
        let ext4 = plan.needs.ext4;
        let ext4 =
            ext4.then(|| Ext4::mount(&dir.join("disk.ext4"), &dir.join(DATA), EXT4_BYTES)).transpose()?;
        let clock = plan.needs.clock.then(|| Clock::create(dir.join("clock"))).transpose()?;
        let network = (plan.network.clone(), plan.place);
        let binary = binary.to_owned();
        let node =
            Self { id, addresses, dir, binary, child: None, excused: false, network, clock, disk, ext4 };
        let config = plan.of_node(id, &node.addresses, &node.data_dir());
        let path = node.config_path();
        std::fs::write(&path, config).with_context(|| format!("write {}", path.display()))?;
        node.write_secret().context("write the cluster's secret")?;
        Ok(node)
    }

    /// Gives the node what all nodes prove to each other that they have.
    fn write_secret(&self) -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        let file =
            options.write(true).create(true).truncate(true).mode(0o600).open(self.dir.join(SECRET_FILE));
        file?.write_all(SECRET)
    }

    /// From its next start on it runs this build.
    pub fn install(&mut self, binary: &Path) {
        self.binary = binary.to_owned();
    }

    /// Its place among the cluster's addresses, from 1.
    #[must_use]
    pub fn place(&self) -> u64 {
        self.network.1
    }

    /// Takes the key out of its configuration by which it may found a group of itself alone; whether it was there.
    ///
    /// # Errors
    /// When its configuration cannot be written.
    pub fn forget_single_node(&self) -> Result<bool> {
        let path = self.config_path();
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let without = text.replace("single_node = true\n", "");
        std::fs::write(&path, &without).with_context(|| format!("write {}", path.display()))?;
        Ok(without != text)
    }

    fn config_path(&self) -> PathBuf {
        self.dir.join("node.toml")
    }

    /// What it prints goes here, one file over all its lives.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("node.log")
    }

    /// Starts the process.
    ///
    /// # Errors
    /// When it runs already or cannot be started.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "node {} runs already", self.id);
        let path = self.log_path();
        let opened: std::io::Result<(File, File)> = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|log| Ok((log.try_clone()?, log)));
        let (out, err) = opened.with_context(|| format!("open {}", path.display()))?;
        let mut command = Command::new(&self.binary);
        command.arg("node").arg("--config").arg(self.config_path());
        command.stdin(Stdio::null()).stdout(out).stderr(err).env("RUST_BACKTRACE", "1");
        if let Some(clock) = &self.clock {
            command.envs(clock.environment());
        }
        let (network, place) = &self.network;
        let child = network.spawn(*place, &mut command);
        let child = child.with_context(|| format!("start {}", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// The number of its process, if it was started.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether the process was started and not killed by us.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// kill -9, and waits until the process is gone.
    ///
    /// # Errors
    /// When it does not run, or had ended by itself before.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().with_context(|| format!("node {} does not run", self.id))?;
        if let Some(status) = child.try_wait().context("look after a child")? {
            if self.excused {
                return Ok(());
            }
            bail!("node {} had ended by itself: {status}; its log: {}", self.id, self.log_path().display());
        }
        child.kill().with_context(|| format!("kill node {}", self.id))?;
        child.wait().with_context(|| format!("wait for node {}", self.id))?;
        Ok(())
    }

    /// Sends a signal by name (`STOP`, `CONT`, `TERM`) to this very process.
    ///
    /// # Errors
    /// When it does not run or the signal is refused.
    pub fn signal(&self, name: &str) -> Result<()> {
        let child = self.child.as_ref().with_context(|| format!("node {} does not run", self.id))?;
        let pid = child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().context("run kill")?;
        ensure!(status.success(), "kill -s {name} {pid} ended with {status}");
        Ok(())
    }

    /// From now on until it is revived its process may end by itself: what was done to it leaves it
    /// no other choice, or a free one.
    pub fn excuse(&mut self) {
        self.excused = true;
    }

    /// Whether its process may end by itself.
    #[must_use]
    pub fn is_excused(&self) -> bool {
        self.excused
    }

    /// Starts the process if it does not run, also if it ended and was excused; the excuse ends.
    ///
    /// # Errors
    /// When it ended without an excuse, or cannot be started.
    pub fn revive(&mut self) -> Result<()> {
        if let Some(status) = self.ended() {
            ensure!(self.excused, "node {} ended by itself: {status}", self.id);
            self.child = None;
        }
        self.excused = false;
        if self.child.is_none() { self.start() } else { Ok(()) }
    }

    /// How the process ended, if it was started and ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok()?
    }

    /// Waits for a process that was told to end.
    ///
    /// # Errors
    /// When it does not run or cannot be waited for.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().with_context(|| format!("node {} does not run", self.id))?;
        child.wait().with_context(|| format!("wait for node {}", self.id))
    }

    /// Waits for a process that was killed by a signal of ours; one that had ended before and was
    /// excused counts as well.
    ///
    /// # Errors
    /// When it did not run, or had ended by itself.
    pub fn buried(&mut self) -> Result<()> {
        let status = self.wait()?;
        let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
        ensure!(killed || self.excused, "node {} had ended by itself: {status}", self.id);
        Ok(())
    }

    /// The folder with the log's segment files, wherever the node put it below its data folder.
    ///
    /// # Errors
    /// When there is none.
    pub fn commitlog(&self) -> Result<PathBuf> {
        let mut waiting = vec![self.data_dir()];
        while let Some(dir) = waiting.pop() {
            let entries = std::fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))?;
            for path in
                entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(|path| path.is_dir())
            {
                if path.file_name().is_some_and(|name| name == "commitlog") {
                    return Ok(path);
                }
                waiting.push(path);
            }
        }
        bail!("no folder commitlog below {}", self.data_dir().display())
    }

    /// Its lossy disk.
    ///
    /// # Errors
    /// When the cluster was started without ([`Needs::lossy`]).
    pub fn disk(&self) -> Result<&Disk> {
        self.disk.as_ref().with_context(|| format!("node {} has an ordinary disk", self.id))
    }

    /// Its small file system.
    ///
    /// # Errors
    /// When the cluster was started without ([`Needs::ext4`]).
    pub fn ext4(&self) -> Result<&Ext4> {
        self.ext4.as_ref().with_context(|| format!("node {} has the machine's file system", self.id))
    }

    /// Moves its process's system clock so far from the right time.
    ///
    /// # Errors
    /// When the cluster was started without ([`Needs::clock`]).
    pub fn set_clock(&self, by_ms: i64) -> Result<()> {
        let clock = self.clock.as_ref();
        clock.with_context(|| format!("node {} has the machine's clock", self.id))?.set(by_ms)
    }

    /// Where it keeps everything.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join(DATA)
    }

    /// The folder with all that is its group's.
    ///
    /// # Errors
    /// When there is none yet.
    pub fn group_dir(&self) -> Result<PathBuf> {
        self.commitlog()?.parent().map(Path::to_owned).context("the log lies in a folder")
    }

    /// Deletes what the log can rebuild: consume queues, checkpoint, snapshots.
    ///
    /// # Errors
    /// When the node runs, or something cannot be deleted.
    pub fn wipe_derived(&self) -> Result<Vec<PathBuf>> {
        self.wipe(&["consumequeue", "consumequeue.tails", "checkpoint", "snapshots", "keyindex", "timers"])
    }

    /// Deletes these files and folders of its group's folder, as far as they are there.
    ///
    /// # Errors
    /// When the node runs, or something cannot be deleted.
    pub fn wipe(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        ensure!(self.child.is_none(), "node {} runs: its files are not ours", self.id);
        let commitlog = self.commitlog()?;
        let group = commitlog.parent().context("commitlog lies in a folder")?;
        let mut wiped = Vec::new();
        for path in names.iter().map(|name| group.join(name)).filter(|path| path.exists()) {
            let removed =
                if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.with_context(|| format!("delete {}", path.display()))?;
            wiped.push(path);
        }
        Ok(wiped)
    }

    /// Deletes all it ever wrote but its printed log: a new disk.
    ///
    /// # Errors
    /// When the node runs, or something cannot be deleted.
    pub fn wipe_everything(&self) -> Result<()> {
        ensure!(self.child.is_none(), "node {} runs: its files are not ours", self.id);
        let data = self.data_dir();
        // Only what is inside: the folder itself may be a mount point.
        let inside = std::fs::read_dir(&data).and_then(|entries| {
            for entry in entries {
                let entry = entry?;
                let is_dir = entry.file_type()?.is_dir();
                if is_dir {
                    std::fs::remove_dir_all(entry.path())?;
                } else {
                    std::fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        });
        inside.with_context(|| format!("delete what is in {}", data.display()))
    }

    /// Lines of its log that say a thread panicked.
    #[must_use]
    pub fn panics(&self) -> Vec<String> {
        let mut text = Vec::new();
        // A log that cannot be read is reported by whoever started the node.
        let _ = File::open(self.log_path()).and_then(|mut file| file.read_to_end(&mut text));
        let text = String::from_utf8_lossy(&text);
        text.lines().filter(|line| line.contains("panicked at")).map(str::to_owned).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended meanwhile; either way nothing is left behind.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::config::GROUP;
    use super::*;
    use crate::nemesis::Needs;

    fn create(dir: &Path, binary: &str) -> Node {
        let plan = Plan {
            base_port: 20_000,
            place: 1,
            places: 1,
            members: &[(1, 1)],
            join: false,
            single_node: false,
            expire: false,
            needs: Needs::default(),
            network: &Network::default(),
        };
        Node::create(dir, Path::new(binary), 1, &plan).unwrap()
    }

    #[test]
    fn only_what_the_log_rebuilds_is_wiped() {
        let dir = tempfile::tempdir().unwrap();
        let node = create(dir.path(), "folio");
        let group = node.data_dir().join(GROUP);
        for folder in ["commitlog", "consumequeue", "snapshots"] {
            std::fs::create_dir_all(group.join(folder)).unwrap();
        }
        for file in ["vote", "checkpoint", "consumequeue.tails", "commitlog/00000000000000000000"] {
            std::fs::write(group.join(file), b"x").unwrap();
        }
        assert_eq!(node.wipe_derived().unwrap().len(), 4);
        assert!(group.join("vote").exists() && group.join("commitlog/00000000000000000000").exists());
        assert!(!group.join("checkpoint").exists() && !group.join("consumequeue").exists());
    }

    #[test]
    fn only_an_excused_process_may_end_and_is_revived() {
        let dir = tempfile::tempdir().unwrap();
        let mut node = create(dir.path(), "false");
        node.start().unwrap();
        while node.ended().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(node.revive().unwrap_err().to_string().contains("by itself"));
        node.excuse();
        node.revive().unwrap();
        assert!(node.is_started() && !node.is_excused(), "the excuse is good for one time");
    }

    #[test]
    fn a_process_that_ended_by_itself_is_not_taken_for_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut node = create(dir.path(), "false");
        node.start().unwrap();
        while node.ended().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(node.kill().unwrap_err().to_string().contains("by itself"));
    }
}
