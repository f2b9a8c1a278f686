//! Putting an open log together: the small files, recovery, the two threads.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;

use super::error::{IoContext, OpenError};
use super::mark::{Mark, Start};
use super::prepare::Preparer;
use super::queue::Queue;
use super::recovery::{Recovered, Recovery};
use super::slots::Slots;
use super::tail::Tail;
use super::view::View;
use super::writer::Writer;
use super::{CommitLog, Inner, LogConfig, Shared, StampBase, segment};
use crate::disk::Disk;

/// The smallest segment: some records must fit.
const SEGMENT_BYTES_MIN: u64 = 1024;
const VOTE_MAGIC: [u8; 4] = *b"FoVo";

/// See [`CommitLog::open`].
pub(super) fn open(
    disk: Arc<dyn Disk>,
    dir: &Path,
    config: LogConfig,
    base: StampBase,
) -> Result<CommitLog, OpenError> {
    if config.segment_bytes < SEGMENT_BYTES_MIN {
        return Err(OpenError::Config(config.segment_bytes));
    }
    let directory = dir.join("commitlog");
    disk.create_dir_all(&directory).context("create", &directory)?;
    disk.sync_dir(dir).context("sync", dir)?;
    let start_path = dir.join("start");
    let start = Start::load(&*disk, &start_path)?;
    let (votes, vote) = Slots::open(&*disk, &dir.join("vote"), VOTE_MAGIC)?;
    let durable_path = dir.join("durable");
    let mut mark = Mark::open(&*disk, &durable_path, &start)?;
    let recovered = Recovery::new(&*disk, &directory, config, start, &mark)?.run(base)?;
    mark.raise(recovered.walk.end).and_then(|()| mark.sync()).context("write", &durable_path)?;

    let preparer = Arc::new(Preparer::new(disk.clone(), &directory, config.segment_bytes));
    preparer.want(segment::base_of(recovered.walk.end, config.segment_bytes) + config.segment_bytes);
    let shared = Arc::new(Shared {
        disk,
        directory,
        start_path,
        config,
        view: Mutex::new(view(start, &recovered)),
        queue: Queue::default(),
        vote: Mutex::new(Some(vote).filter(|vote| !vote.is_empty())),
        poison: OnceLock::new(),
    });
    let Recovered { files, stamper, walk, .. } = recovered;
    let now = Instant::now();
    let writer = Writer {
        shared: shared.clone(),
        preparer: preparer.clone(),
        files,
        dirty: Default::default(),
        end: walk.end,
        last: walk.last,
        mark,
        votes,
        mark_synced: now,
        data_synced: now,
    };
    let threads = Mutex::new(start_threads(writer, &preparer, dir)?);
    let tail = Mutex::new(Tail::new(walk.end, walk.prev_crc, walk.last, stamper));
    Ok(CommitLog { inner: Arc::new(Inner { shared, preparer, tail, threads }) })
}

fn view(start: Start, recovered: &Recovered) -> View {
    let walk = recovered.walk;
    View {
        start,
        last: walk.last,
        end: walk.end,
        cache: Default::default(),
        segments: recovered.segments.clone(),
        appended: 0,
        written: 0,
        durable_end: walk.end,
        durable: walk.last,
        epoch: 0,
    }
}

fn start_threads(
    writer: Writer,
    preparer: &Arc<Preparer>,
    dir: &Path,
) -> Result<Vec<JoinHandle<()>>, OpenError> {
    let preparer = preparer.clone();
    let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name.into()).spawn(body).context("start a thread for", dir)
    };
    Ok(vec![
        spawn("folio-log", Box::new(move || writer.run()))?,
        spawn("folio-segment", Box::new(move || preparer.run()))?,
    ])
}
