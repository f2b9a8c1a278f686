#![no_main]
//! A data directory with foreign bytes in one of its files: opening refuses or succeeds, and what it shows can be read.
//!
//! The first byte chooses the file and whether its checksums are made right, the others are its content.

mod sealed;

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use folio_engine::counters::QueueCounters;
use folio_engine::disk::sim::SimDisk;
use folio_engine::disk::{Disk, OpenMode};
use folio_engine::log::{OnRot, Running, Stepped, Worker, Workers};
use folio_engine::{Checkpoints, CommitLog, ConsumeQueues, LogConfig, StampBase};
use libfuzzer_sys::fuzz_target;

const FILES: [&str; 7] = [
    "start",
    "vote",
    "durable",
    "commitlog/00000000000000000000",
    "checkpoint",
    "snapshots/00000000000000004096",
    "consumequeue/a/0/00000000000000000000",
];
const SEGMENT_BYTES: u64 = 4096;
/// A segment, or two slots.
const CONTENT_BYTES_MAX: usize = 8192;

/// Workers that nobody steps before the log is closed.
struct Idle;

impl Workers for Idle {
    fn start(&self, _name: &'static str, worker: Box<dyn Worker>) -> io::Result<Box<dyn Running>> {
        Ok(Box::new(Stepped::new(worker)))
    }

    fn may_wait(&self) -> bool {
        false
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

/// What is put into the file.
fn content(choice: u8, bytes: &[u8]) -> Vec<u8> {
    if choice < 128 {
        return bytes.to_vec();
    }
    match FILES[usize::from(choice) % FILES.len()] {
        "start" => sealed::start(bytes),
        "vote" => sealed::slot(b"FoVo", bytes),
        "durable" => sealed::slot(b"FoDu", bytes),
        name if name.starts_with("commitlog") => sealed::records(bytes),
        name if name.starts_with("consumequeue") => bytes.to_vec(),
        _ => sealed::checkpoint(bytes),
    }
}

fn put(disk: &SimDisk, name: &str, content: &[u8]) -> io::Result<()> {
    let path = Path::new("/data").join(name);
    disk.create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    let file = disk.open(&path, OpenMode::Create)?;
    let most = if name.starts_with("commitlog") { SEGMENT_BYTES as usize } else { CONTENT_BYTES_MAX };
    if name.starts_with("commitlog") {
        file.allocate(SEGMENT_BYTES)?;
    }
    file.write_all_at(&[IoSlice::new(&content[..content.len().min(most)])], 0)
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, content)) = data.split_first() else { return };
    let disk = SimDisk::new();
    let content = self::content(*choice, content);
    if put(&disk, FILES[usize::from(*choice) % FILES.len()], &content).is_err() {
        return;
    }
    let (shared, dir): (Arc<dyn Disk>, _) = (Arc::new(disk), Path::new("/data"));
    if let Ok(checkpoints) = Checkpoints::open(shared.clone(), dir) {
        let _ = checkpoints.load_latest();
        for position in checkpoints.snapshots().unwrap_or_default() {
            let _ = checkpoints.load_snapshot(position);
        }
    }
    let counters = QueueCounters::default();
    if let Ok(queues) = ConsumeQueues::open(shared.clone(), dir, &counters, &counters) {
        let _ = queues.units("a", 0, 0, 100);
    }
    let config = LogConfig { segment_bytes: SEGMENT_BYTES, cache_bytes: 0, sync: true };
    if let Ok(log) = CommitLog::open_on(shared, Arc::new(Idle), dir, config, StampBase::default(), OnRot::Refuse) {
        let state = log.state();
        let records = log.read(state.first_index, u64::MAX, usize::MAX).expect("an open log can be read");
        assert_eq!(records.last().map(|record| record.id()).or(state.purged), state.last);
    }
});
