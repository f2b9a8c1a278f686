//! Putting an open log together: the small files, recovery, the three workers.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::config::{LogConfig, OnRot};
use super::error::{IoContext, OpenError};
use super::mark::{Mark, Start, StartFile};
use super::prepare::{Preparer, Preparing};
use super::queue::Queue;
use super::recovery::{Recovered, Recovery};
use super::remove::{Remover, Removing};
use super::shared::Shared;
use super::slots::Slots;
use super::stamp_base::StampBase;
use super::tail::Tail;
use super::view::View;
use super::workers::{Guarded, Running, Threads, Workers};
use super::writer::Writer;
use super::{CommitLog, Inner, segment};
use crate::disk::{Buffers, Disk};

/// The smallest segment: some records must fit.
const SEGMENT_BYTES_MIN: u64 = 1024;
const VOTE_MAGIC: [u8; 4] = *b"FoVo";

/// A log's first segment is made after both files are durable: one that is missing beside it was lost, with what this node
/// promised. A new one in its place would say that it promised nothing (`log.I12`).
fn check_is_there(disk: &dyn Disk, path: &Path) -> Result<(), OpenError> {
    if disk.exists(path).context("look for", path)? {
        return Ok(());
    }
    Err(OpenError::StateFile { file: path.to_owned(), reason: "it is gone, and the log is there".into() })
}

fn has_segments(disk: &dyn Disk, directory: &Path) -> std::io::Result<bool> {
    Ok(disk.list(directory)?.iter().any(|path| segment::base_of_path(path).is_some()))
}

impl CommitLog {
    /// Opens the log in `dir` and makes its tail whole. `base` is the state as of some record boundary of the retained
    /// log, from a checkpoint; the default is the start of an empty log. Every record after it is verified.
    ///
    /// The caller holds the directory's lock ([`Disk::lock`]).
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: LogConfig,
        base: StampBase,
    ) -> Result<CommitLog, OpenError> {
        let workers = Arc::new(Threads::default());
        CommitLog::open_on(disk, workers, dir, config, base, OnRot::Refuse)
    }

    /// Like [`CommitLog::open`], with workers that a simulation may step, and a say in what happens when acknowledged
    /// records are damaged.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        workers: Arc<dyn Workers>,
        dir: &Path,
        config: LogConfig,
        base: StampBase,
        on_rot: OnRot,
    ) -> Result<CommitLog, OpenError> {
        if config.segment_bytes < SEGMENT_BYTES_MIN {
            return Err(OpenError::Config(config.segment_bytes));
        }
        let directory = dir.join("commitlog");
        disk.create_dir_all(&directory).context("create", &directory)?;
        disk.sync_dir(dir).context("sync", dir)?;
        let start_path = dir.join("start");
        let mut start_file = StartFile::open(&*disk, &start_path)?;
        let start = start_file.start();
        if has_segments(&*disk, &directory).context("list", &directory)? {
            check_is_there(&*disk, &dir.join("vote"))?;
            if on_rot != OnRot::Cut {
                check_is_there(&*disk, &dir.join("durable"))?;
            }
        }
        let (votes, vote) = Slots::open(&*disk, &dir.join("vote"), VOTE_MAGIC, true)?;
        let durable_path = dir.join("durable");
        let mut mark = match Mark::open(&*disk, &durable_path, &start) {
            // Then any bad record ends the log: the caller has noted that this replica may lack what it acknowledged.
            Err(OpenError::StateFile { .. }) if on_rot == OnRot::Cut => {
                disk.remove(&durable_path).context("remove", &durable_path)?;
                Mark::open(&*disk, &durable_path, &start)?
            }
            opened => opened?,
        };
        let recovered = Recovery::new(&*disk, &directory, config, start, &mark, on_rot)?;
        let recovered = recovered.run(base, &mut mark)?;
        mark.raise(recovered.walk.end).and_then(|()| mark.sync()).context("write", &durable_path)?;
        if !start_file.prepare_if_room(&*disk).context("prepare", &start_path)? {
            tracing::warn!(file = %start_path.display(), "disk full: old segments are dropped once there is room");
        }

        let preparer = Preparer::new(disk.clone(), &directory, config.segment_bytes, workers.may_wait());
        let preparer = Arc::new(preparer);
        let base = segment::base_of(recovered.walk.end, config.segment_bytes);
        let reserved = recovered.unreserved != Some(base);
        preparer.want(if reserved { base + config.segment_bytes } else { base });
        let remover = Arc::new(Remover::new(disk.clone(), &directory));
        let shared = Arc::new(Shared {
            disk,
            directory,
            start_has_space: start_file.has_space().into(),
            start: Mutex::new(start_file),
            config,
            view: Mutex::new(view(start, &recovered)),
            queue: Queue::default(),
            vote: Mutex::new(Some(vote).filter(|vote| !vote.is_empty())),
            poison: OnceLock::new(),
            buffers: Buffers::default(),
            verified_cache: Default::default(),
            synced_us: Default::default(),
            damages: Default::default(),
        });
        let Recovered { files, stamper, walk, leaving, unreserved, .. } = recovered;
        remover.add(leaving);
        let now = workers.now();
        let writer = Writer {
            shared: shared.clone(),
            preparer: preparer.clone(),
            remover: remover.clone(),
            files,
            unreserved,
            dirty: Default::default(),
            end: walk.end,
            zero_fill: Default::default(),
            last: walk.last,
            mark,
            votes,
            workers: workers.clone(),
            mark_synced: now,
            data_synced: now,
            pending: None,
        };
        let running = Mutex::new(start_workers(&*workers, writer).context("start a worker for", dir)?);
        let tail = Mutex::new(Tail::new(walk.end, walk.prev_crc, walk.last, stamper));
        Ok(CommitLog { inner: Arc::new(Inner { shared, preparer, tail, running }) })
    }
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
        cut: None,
    }
}

fn start_workers(workers: &dyn Workers, writer: Writer) -> std::io::Result<Vec<Box<dyn Running>>> {
    let shared = writer.shared.clone();
    let (preparing, removing) = (Preparing(writer.preparer.clone()), Removing(writer.remover.clone()));
    Ok(vec![
        workers.start("folio-log", Guarded::new(writer, "folio-log", &shared))?,
        workers.start("folio-segment", Guarded::new(preparing, "folio-segment", &shared))?,
        workers.start("folio-remove", Guarded::new(removing, "folio-remove", &shared))?,
    ])
}
