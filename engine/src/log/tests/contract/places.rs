//! Where the suite keeps a log, and how it comes back to one.

use tempfile::TempDir;

use super::*;
use crate::disk::sim::{SeededChoice, SimDisk};

pub(super) trait Place {
    type Log: DurableLog;

    fn new() -> Self;

    /// Opens the log that is here, which was closed; every entry behind `base` is verified.
    fn open(&mut self, base: &StampBase) -> Self::Log;
}

/// A place that can crash.
pub(super) trait Crashes: Place {
    /// Ends the log as a crash does, and opens what is left.
    fn crash(&mut self, log: Self::Log, base: &StampBase, seed: u64) -> Self::Log;
}

pub(super) struct OnRealDisk(TempDir);

impl Place for OnRealDisk {
    type Log = CommitLog;

    fn new() -> Self {
        OnRealDisk(tempfile::tempdir().unwrap())
    }

    fn open(&mut self, base: &StampBase) -> CommitLog {
        CommitLog::open(Arc::new(RealDisk), self.0.path(), config(), base.clone()).unwrap()
    }
}

pub(super) struct OnSimDisk(SimDisk);

impl Place for OnSimDisk {
    type Log = CommitLog;

    fn new() -> Self {
        OnSimDisk(SimDisk::new())
    }

    fn open(&mut self, base: &StampBase) -> CommitLog {
        // Little fits the cache, so that reads go to the files.
        let config = LogConfig { cache_bytes: 500, ..config() };
        CommitLog::open(Arc::new(self.0.clone()), Path::new("/"), config, base.clone()).unwrap()
    }
}

impl Crashes for OnSimDisk {
    fn crash(&mut self, log: CommitLog, base: &StampBase, seed: u64) -> CommitLog {
        let left = self.0.crash(&mut SeededChoice::new(seed));
        log.close();
        self.0 = left;
        self.open(base)
    }
}

#[derive(Default)]
pub(super) struct InMemory(MemoryLog);

impl InMemory {
    pub(super) fn of(log: &MemoryLog) -> InMemory {
        InMemory(log.clone())
    }
}

impl Place for InMemory {
    type Log = MemoryLog;

    fn new() -> Self {
        InMemory::default()
    }

    fn open(&mut self, base: &StampBase) -> MemoryLog {
        self.0 = self.0.reopen(base);
        self.0.clone()
    }
}

impl Crashes for InMemory {
    fn crash(&mut self, log: MemoryLog, base: &StampBase, seed: u64) -> MemoryLog {
        self.0 = log.crash(SeededChoice::new(seed).below(4) as usize, base);
        self.0.clone()
    }
}
