//! One node as a child process.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{self, Command, Stdio};

use anyhow::{Context, Result};
use folio_server::private_files::FILE_MODE;
use rustix::process::{Pid, Signal, kill_process};

use super::layout::Layout;

/// How much of a log's end is read for its last lines.
const TAIL_BYTES: u64 = 4 * 1024;
/// Lines shown of a node that did not start.
const TAIL_LINES: usize = 5;

/// A node's process.
pub(super) struct Child {
    pub(super) id: u64,
    /// What it prints goes here.
    pub(super) log: PathBuf,
    process: process::Child,
    running: bool,
}

impl Child {
    /// Starts node `id`. It ends with this process, however this one ends.
    pub(super) fn start(layout: &Layout, id: u64, level: Option<&str>) -> Result<Self> {
        let log = layout.log(id);
        let open = || OpenOptions::new().create(true).append(true).mode(FILE_MODE).open(&log);
        let file = open().with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(super::program::own_binary()?);
        command.args(["node", "--parent", &process::id().to_string(), "--config"]).arg(layout.config(id));
        if let Some(level) = level {
            command.args(["--log", level]);
        }
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // A process group of its own: Ctrl-C at the terminal reaches this process, which stops the nodes.
        command.process_group(0);
        let process = command.spawn().with_context(|| format!("cannot start node {id}"))?;
        Ok(Self { id, log, process, running: true })
    }

    /// How it ended, told once.
    pub(super) fn ended(&mut self) -> Option<String> {
        if !self.running {
            return None;
        }
        let status = match self.process.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => format!("has ended ({status})"),
            Err(error) => format!("is lost: {error}"),
        };
        self.running = false;
        Some(status)
    }

    pub(super) fn is_running(&mut self) -> bool {
        drop(self.ended());
        self.running
    }

    /// Asks it to stop.
    pub(super) fn terminate(&mut self) {
        if !self.is_running() {
            return;
        }
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        if let Some(Err(error)) = pid.map(|pid| kill_process(pid, Signal::TERM)) {
            super::program::tell(format_args!("node {} cannot be told to stop: {error}", self.id));
        }
    }

    /// Ends it at once.
    pub(super) fn kill(&mut self) {
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait().map(drop)) {
            super::program::tell(format_args!("node {} cannot be killed: {error}", self.id));
        }
        self.running = false;
    }

    /// The last lines it printed.
    pub(super) fn last_lines(&self) -> String {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.log)?;
            let len = file.metadata()?.len();
            file.seek(SeekFrom::Start(len.saturating_sub(TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}
