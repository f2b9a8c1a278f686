//! What a checkpoint costs the records beside it: one node with the offsets of 100,000 consumer groups in a million queues takes
//! messages and offset commits, and saves a checkpoint every 15 seconds; beside it one without any offset.
//!
//! Prints one line for each turn: how long records waited for their answers, and how many checkpoints were saved meanwhile. On one
//! node each answer waits for one fdatasync and nothing else, so the longest wait of a turn is that of the disk, or of a
//! checkpoint that is in the way. Therefore the longest waits are told apart: of records that were under way while a checkpoint
//! was made, and of all others.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use folio_benches::new_message;
use folio_engine::disk::RealDisk;
use folio_engine::queues::Arrival;
use folio_protocol::message::NewMessage;
use folio_raft::config::{Flush, GroupConfig, Retention, Scrub, Timing};
use folio_raft::group::{Group, Hooks};
use folio_raft::proposal::{Proposal, Repeat};
use folio_raft::status::Role;
use folio_raft::types::NodeAddress;
use folio_state::{CommitOffsets, OffsetCommit};
use futures_util::future::{BoxFuture, join_all};
use hdrhistogram::Histogram;
use tempfile::tempdir;

/// Consumer groups, each with a topic of its own.
const GROUPS: u32 = 100_000;
/// Queues of each topic.
const QUEUES: u32 = 10;
/// Offsets in one command while the state is filled.
const FILL_OFFSETS: u32 = 10_000;
/// Offsets in one command under load: what the clients of a node commit together.
const COMMIT_OFFSETS: u32 = 200;
/// Senders, each with one message under way.
const SENDERS: u32 = 16;
/// Waits above this are looked at one by one.
const LONG: Duration = Duration::from_millis(2);
/// A state of this size is copied and encoded within this time before its file appears.
const ENCODING: Duration = Duration::from_millis(250);
const SEGMENT_BYTES: u64 = 64 << 20;
/// Long enough for two checkpoints.
const TURN: Duration = Duration::from_secs(35);
const TURNS: usize = 3;

type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

struct NoHooks;

impl Hooks for NoHooks {
    fn call(&self, _: u64, request: Bytes) -> BoxFuture<'static, Bytes> {
        Box::pin(std::future::ready(request))
    }
    fn applied(&self, _: &[Arrival]) {}
    fn state_changed(&self) {}
}

fn free_address() -> Fallible<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

async fn start(dir: &Path) -> Fallible<Group> {
    let listen = free_address()?;
    let address = NodeAddress { raft: listen.to_string(), broker: String::new(), namesrv: String::new() };
    let config = GroupConfig {
        node_id: 1,
        cluster: "bench".into(),
        group: "bench".into(),
        data_dir: dir.to_owned(),
        segment_bytes: SEGMENT_BYTES,
        nodes: BTreeMap::from([(1, address)]),
        dial: BTreeMap::new(),
        join: false,
        single_node: true,
        listen,
        flush: Flush::Sync,
        timing: Timing::default(),
        retention: Retention { age: None, bytes: Some(1 << 30), interval: Duration::from_secs(5) },
        secret: None,
        scrub: Scrub { bytes_per_second: 64 << 20, interval: Duration::from_secs(3600) },
        dedup: None,
    };
    let group = Group::start(config, Arc::new(RealDisk), Arc::new(NoHooks)).await?;
    while group.status().role != Role::Leader || group.is_settling() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(group)
}

fn commits(first: u32, count: u32, offset: u64) -> CommitOffsets {
    let commit = |number: u32| OffsetCommit {
        group: format!("consumer-group-{}", number / QUEUES % GROUPS),
        topic: format!("topic-{}", number / QUEUES % GROUPS),
        queue: number % QUEUES,
        offset,
    };
    CommitOffsets((first..first + count).map(commit).collect())
}

fn message(sender: u32) -> NewMessage {
    NewMessage { properties: Bytes::new(), ..new_message(sender) }
}

/// How long records waited.
struct Waits {
    /// Microseconds.
    all: Histogram<u64>,
    /// When each long wait was.
    long: Vec<Span>,
}

/// From one moment to another.
type Span = (Instant, Instant);

impl Waits {
    fn new() -> Fallible<Waits> {
        Ok(Waits { all: Histogram::new(3)?, long: Vec::new() })
    }

    fn note(&mut self, begun: Instant) -> Fallible<()> {
        let now = Instant::now();
        self.all.record((now - begun).as_micros() as u64)?;
        if now - begun > LONG {
            self.long.push((begun, now));
        }
        Ok(())
    }

    fn add(&mut self, other: Waits) -> Fallible<()> {
        self.all.add(other.all)?;
        self.long.extend(other.long);
        Ok(())
    }

    /// The longest wait that met one of `spans`, and the longest of the others, in milliseconds; waits up to [`LONG`] count as that.
    fn longest(&self, spans: &[Span]) -> (f64, f64) {
        let meets = |wait: &&Span| spans.iter().any(|span| wait.0 < span.1 && span.0 < wait.1);
        let (met, others): (Vec<&Span>, Vec<&Span>) = self.long.iter().partition(meets);
        let longest = |waits: Vec<&Span>| waits.iter().map(|wait| wait.1 - wait.0).max().unwrap_or(LONG);
        (longest(met).as_secs_f64() * 1e3, longest(others).as_secs_f64() * 1e3)
    }
}

/// Sends one message after the other; how long each waited.
async fn send(group: Group, sender: u32, until: Instant) -> Fallible<Waits> {
    let mut waits = Waits::new()?;
    while Instant::now() < until {
        let begun = Instant::now();
        let (answer, answered) = tokio::sync::oneshot::channel();
        let reply = Box::new(move |outcome| drop(answer.send(outcome)));
        let proposal = Proposal { messages: vec![message(sender)], repeat: Repeat::Store, reply };
        group.propose(proposal).map_err(|(_, error)| error)?;
        answered.await??;
        waits.note(begun)?;
    }
    Ok(waits)
}

/// Commits offsets all over the state: a chunk that a checkpoint shares is copied at its first change.
async fn commit(group: Group, until: Instant) -> Fallible<u64> {
    let mut count = 0;
    while Instant::now() < until {
        // A stride that has no common divisor with the number of groups visits all of them.
        let first = (count as u32).wrapping_mul(7_919 * QUEUES) % (GROUPS * QUEUES);
        group.execute(commits(first, COMMIT_OFFSETS, count)).await?;
        count += 1;
    }
    Ok(count)
}

/// When checkpoints were made at `file`: from the copy of the state, which comes shortly before their file, to the file's end.
async fn watch(file: &Path, until: Instant) -> Vec<Span> {
    let changed = || -> Option<SystemTime> { file.metadata().ok()?.modified().ok() };
    let temporary = file.with_extension("tmp");
    let (mut last, mut spans, mut begun) = (changed(), Vec::new(), None);
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now = Instant::now();
        if temporary.exists() {
            begun.get_or_insert(now - ENCODING);
        }
        let replaced = changed();
        if replaced != last {
            spans.push((begun.take().unwrap_or(now - ENCODING), now));
            last = replaced;
        }
    }
    spans
}

async fn turn(name: &str, dir: &Path, group: &Group) -> Fallible<()> {
    let until = Instant::now() + TURN;
    let senders = (0..SENDERS).map(|sender| tokio::spawn(send(group.clone(), sender, until)));
    let senders: Vec<_> = senders.collect();
    let commits = tokio::spawn(commit(group.clone(), until));
    let checkpoints = watch(&dir.join("checkpoint"), until).await;
    let mut waits = Waits::new()?;
    for sender in join_all(senders).await {
        waits.add(sender??)?;
    }
    let (beside, otherwise) = waits.longest(&checkpoints);
    let lasted: Duration = checkpoints.iter().map(|span| span.1 - span.0).sum();
    let begun = Instant::now();
    black_box(group.state().clone());
    let copied = begun.elapsed();
    let ms = |quantile| waits.all.value_at_quantile(quantile) as f64 / 1000.0;
    println!(
        "{name:>10} {:>9} {:>8.2} {:>8.2} {:>8.2} {beside:>8.2} {otherwise:>8.2} {:>11} {:>7.2} {:>8} {:>9.1}",
        waits.all.len(),
        ms(0.5),
        ms(0.99),
        ms(0.999),
        checkpoints.len(),
        lasted.as_secs_f64(),
        commits.await??,
        copied.as_secs_f64() * 1e6,
    );
    Ok(())
}

async fn run() -> Fallible<()> {
    let dirs = (tempdir()?, tempdir()?);
    let (empty, full) = (start(dirs.0.path()).await?, start(dirs.1.path()).await?);
    for first in (0..GROUPS * QUEUES).step_by(FILL_OFFSETS as usize) {
        full.execute(commits(first, FILL_OFFSETS, 0)).await?;
    }
    println!(
        "a state of {} bytes, and one of {}",
        full.state().encoded_bytes(),
        empty.state().encoded_bytes()
    );
    println!(
        "{:>10} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>11} {:>7} {:>8} {:>9}",
        "offsets",
        "messages",
        "p50 ms",
        "p99 ms",
        "p999 ms",
        "beside",
        "others",
        "checkpoints",
        "lasted",
        "commits",
        "copy us"
    );
    for _ in 0..TURNS {
        turn("few", dirs.0.path(), &empty).await?;
        turn("a million", dirs.1.path(), &full).await?;
    }
    empty.shutdown().await;
    full.shutdown().await;
    Ok(())
}

fn main() -> Fallible<()> {
    // Cargo says `--bench`.
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run())
}
