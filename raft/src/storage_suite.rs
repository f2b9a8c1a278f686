//! openraft's own storage test suite, on our log, queues and state.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use folio_engine::checkpoint::Checkpoint;
use folio_engine::disk::sim::{LoseAll, SimDisk};
use folio_engine::disk::{Disk, RealDisk, Reserve};
use folio_engine::log::StampBase;
use folio_engine::queues::Arrival;
use folio_engine::record::EntryId;
use futures_util::Stream;
use openraft::StorageError;
use openraft::base::BoxFuture;
use openraft::entry::RaftEntry;
use openraft::storage::{
    EntryResponder, RaftLogReader, RaftLogStorage, RaftLogStorageExt, RaftSnapshotBuilder, RaftStateMachine,
    Snapshot,
};
use openraft::testing::log::{StoreBuilder, Suite};
use parking_lot::{Mutex, RwLock};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::config::{DedupConfig, Flush, GroupConfig, Retention, Timing};
use crate::group::failure_detector::FailureDetector;
use crate::group::{
    Hooks,
    recover::{self, Recovered},
};
use crate::host::Host;
use crate::lease_clock::LeaseClock;
use crate::log_store::LogStore;
use crate::shared::{Durable, Shared};
use crate::state_machine::{SnapshotContent, SnapshotMetaOf, SnapshotOf, StateMachine};
use crate::terms::Terms;
use crate::types::{LogEntry, LogId, StoredMembership, TypeConfig, log_id};
use folio_state::{CommitOffsets, OffsetCommit};

const SEGMENT_BYTES: u64 = 64 << 10;

pub(crate) struct NoHooks;

impl Hooks for NoHooks {
    fn call(&self, _: u64, request: Bytes) -> BoxFuture<'static, Bytes> {
        Box::pin(std::future::ready(request))
    }
    fn applied(&self, _: &[Arrival]) {}
    fn state_changed(&self) {}
}

struct Builder;

pub(crate) fn config(dir: &Path) -> GroupConfig {
    GroupConfig {
        node_id: 0,
        cluster: "test".into(),
        group: "test".into(),
        data_dir: dir.to_owned(),
        segment_bytes: SEGMENT_BYTES,
        nodes: Default::default(),
        dial: Default::default(),
        join: false,
        single_node: true,
        listen: ([127, 0, 0, 1], 0).into(),
        flush: Flush::Sync,
        timing: Timing::default(),
        retention: Retention::default(),
        scrub: Default::default(),
        secret: None,
        dedup: Some(DedupConfig::default()),
    }
}

/// The state machine with snapshots as openraft's suite wants them: of now, and the same again after they were installed.
/// Our own are of a segment's start, which the suite never gets to.
struct OfNow {
    machine: StateMachine,
    current: Arc<Mutex<Option<SnapshotOf>>>,
}

struct BuilderOfNow(SnapshotOf, Arc<Mutex<Option<SnapshotOf>>>);

impl RaftSnapshotBuilder<TypeConfig> for BuilderOfNow {
    type SnapshotData = SnapshotContent;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf> {
        *self.1.lock() = Some(self.0.clone());
        Ok(self.0.clone())
    }
}

impl RaftStateMachine<TypeConfig> for OfNow {
    type SnapshotData = SnapshotContent;
    type SnapshotBuilder = BuilderOfNow;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        self.machine.applied_state().await
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        self.machine.apply(entries).await
    }

    async fn get_snapshot_builder(&mut self) -> BuilderOfNow {
        BuilderOfNow(self.machine.capture().into_snapshot(), self.current.clone())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf, snapshot: SnapshotContent) -> io::Result<()> {
        self.machine.install_snapshot(meta, snapshot.clone()).await?;
        *self.current.lock() = Some(Snapshot { meta: meta.clone(), snapshot });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf>> {
        Ok(self.current.lock().clone())
    }
}

impl Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = TempDir::new().map_err(|error| StorageError::write(openraft_error(error)))?;
        let config = config(dir.path());
        let host = Host::new(Arc::new(RealDisk));
        let opened =
            recover::open(&config, &host).map_err(|error| StorageError::write(openraft_error(error)))?;
        let (store, machine) = parts(host, opened);
        Ok((dir, store, machine))
    }
}

impl StoreBuilder<TypeConfig, LogStore, OfNow, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, OfNow), StorageError<TypeConfig>> {
        let (dir, store, machine) = Builder::build(self).await?;
        Ok((dir, store, OfNow { machine, current: Arc::default() }))
    }
}

/// The parts of a group in `/data/broker-a` of a simulated disk.
pub(crate) fn open_on(disk: &SimDisk) -> (LogStore, StateMachine) {
    let host = Host::new(Arc::new(disk.clone()));
    let opened = recover::open(&config(Path::new("/data/broker-a")), &host).unwrap();
    parts(host, opened)
}

fn parts(host: Host, opened: Recovered) -> (LogStore, StateMachine) {
    let shared = Arc::new(Shared {
        vote_at_start: opened.log.vote(),
        log: opened.log,
        queues: opened.queues,
        derived: opened.derived,
        indexes: opened.indexes,
        timers: opened.timers,
        carry_wanted: AtomicU64::new(0),
        halves_wanted: AtomicU64::new(0),
        popped_wanted: AtomicU64::new(0),
        popped_floor: AtomicU64::new(0),
        heard_commit: AtomicU64::new(0),
        commit_known_at: Default::default(),
        retention_bytes: None,
        state: RwLock::default(),
        level: Default::default(),
        lease_clock: LeaseClock::new(0),
        ordered_as_of: Default::default(),
        state_bytes: Default::default(),
        checkpoints: opened.checkpoints,
        durable: watch::Sender::new(Durable::default()),
        hooks: Arc::new(NoHooks),
        pending_reset: Mutex::default(),
        trimmed: Mutex::default(),
        wanted_snapshot: Mutex::default(),
        snapshots: Default::default(),
        applied_index: AtomicU64::new(0),
        applied_position: AtomicU64::new(0),
        applied_term: AtomicU64::new(0),
        progress: Default::default(),
        terms: Default::default(),
        dedup: opened.dedup,
        segment_bytes: SEGMENT_BYTES,
        calls: Default::default(),
        eligibility: Default::default(),
        status_messages: Default::default(),
        detector: FailureDetector::new(1, Timing::default()),
        failed: Default::default(),
        rot: Default::default(),
        unmet_preconditions: Default::default(),
        skip_entry: Default::default(),
        reserve: Arc::new(Reserve::new(host.disk.clone(), Path::new("/"), 0)),
        stopping: watch::Sender::new(false),
    });
    let machine = StateMachine::new(host.clone(), shared.clone(), opened.saved.membership, &opened.base);
    (LogStore::new(host, shared), machine)
}

fn openraft_error(error: impl ToString) -> openraft::impls::BoxedErrorSource {
    use openraft::errors::ErrorSource;
    openraft::impls::BoxedErrorSource::from_string(error.to_string())
}

#[test]
fn a_group_folder_that_was_just_made_is_there_after_a_power_cut() {
    let disk = SimDisk::new();
    let config = config(Path::new("/data/broker-a"));
    recover::open(&config, &Host::new(Arc::new(disk.clone()))).unwrap().log.close();
    let after = disk.crash(&mut LoseAll);
    assert!(
        after.exists(&config.data_dir.join("vote")).unwrap(),
        "all a node ever acknowledged went with its folder"
    );
}

#[test]
fn the_commit_log_passes_openrafts_storage_suite() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let passed = runtime.unwrap().block_on(Suite::test_all(Builder));
    if let Err(error) = passed {
        panic!("openraft's storage suite: {error}");
    }
}

#[tokio::test]
async fn a_node_has_what_is_in_its_log_under_the_same_term() {
    let (_dir, mut store, _) = Builder.build().await.unwrap();
    let blank = |index| LogEntry::new_blank(log_id(EntryId { term: 2, index }));
    store.blocking_append((0..5).map(blank)).await.unwrap();
    let has = |term, index| store.shared().has(EntryId { term, index });
    assert!(has(2, 0) && has(2, 4));
    assert!(!has(1, 4) && !has(3, 4), "another leader's entry");
    assert!(!has(2, 5), "not there yet");
}

/// A stream of appends that had broken read on, and its error stopped the leader (simulation).
#[tokio::test]
async fn t90_entries_purged_since_a_stream_to_a_peer_began_are_no_error_of_the_log() {
    let (_dir, mut store, _) = Builder.build().await.unwrap();
    let blank = |index| LogEntry::new_blank(log_id(EntryId { term: 1, index }));
    store.blocking_append((0..5).map(blank)).await.unwrap();
    store.purge(log_id(EntryId { term: 1, index: 2 })).await.unwrap();
    assert!(store.limited_get_log_entries(1, 5).await.unwrap().is_empty());
    assert_eq!(store.limited_get_log_entries(3, 5).await.unwrap().len(), 2);
}

/// What applies reads so, and a stop waits for it: with no peer to repair the record, for good.
#[tokio::test]
async fn a_read_that_waits_for_a_damaged_record_ends_when_the_group_stops() {
    let disk = SimDisk::new();
    let (mut store, _) = open_on(&disk);
    let blank = |index| LogEntry::new_blank(log_id(EntryId { term: 1, index }));
    store.blocking_append((0..5).map(blank)).await.unwrap();
    store.shared().log.close();
    let (mut store, _) = open_on(&disk);
    disk.lose(Path::new("/data/broker-a/commitlog/00000000000000000000"), 0..4096).unwrap();
    let shared = store.shared().clone();
    let read = tokio::spawn(async move { store.limited_get_log_entries(0, 5).await });
    while shared.log.damages().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!read.is_finished());
    shared.stopping.send_replace(true);
    let ended = tokio::time::timeout(Duration::from_secs(20), read).await;
    assert!(ended.is_ok_and(|read| read.unwrap().is_err()));
}

/// Nine entries in terms 1, 1, 1, 4, 4, 5, 7, 7, 7, from index 0 on.
async fn log_of_four_terms() -> (TempDir, LogStore, Vec<EntryId>) {
    let (dir, mut store, _) = Builder.build().await.unwrap();
    let terms = [1, 1, 1, 4, 4, 5, 7, 7, 7];
    let ids: Vec<EntryId> = terms.into_iter().zip(0..).map(|(term, index)| EntryId { term, index }).collect();
    let blanks = ids.iter().map(|id| LogEntry::new_blank(log_id(*id)));
    store.blocking_append(blanks).await.unwrap();
    (dir, store, ids)
}

#[tokio::test]
async fn terms_i1_the_last_entry_of_each_term_is_found_however_much_of_them_is_known() {
    let (_dir, mut store, ids) = log_of_four_terms().await;
    for first in 0..ids.len() {
        let ends = [2, 4, 5, 8].into_iter().filter(|last| *last >= first);
        let expected: Vec<_> = ends.map(|last| log_id(ids[last])).collect();
        for (known_from, applied) in
            (0..ids.len()).flat_map(|known| (known..ids.len()).map(move |at| (known, at)))
        {
            let mut terms = Terms::after(Some(ids[known_from]));
            ids[known_from..=applied].iter().for_each(|id| terms.note(*id));
            *store.shared().terms.lock() = terms;
            store.shared().applied_index.store(applied as u64, Ordering::Release);
            store.shared().applied_term.store(ids[applied].term, Ordering::Release);
            let found = store.get_key_log_ids(log_id(ids[first])..=log_id(ids[8])).await.unwrap();
            assert_eq!(found, expected, "from {first}, known from {known_from} to {applied}");
            let learned = store.shared().terms.lock().between(ids[first], ids[applied]).is_some();
            assert!(learned || first > applied, "from {first}, known from {known_from} to {applied}");
        }
    }
}

/// Written a second time when it was installed, it found no room: the node stopped, and had said that it applied what its log
/// did not have (simulation).
#[tokio::test]
async fn t90_a_full_disk_stopped_a_node_that_installed_a_snapshot_it_had_saved() {
    let disk = SimDisk::new();
    let host = Host::new(Arc::new(disk.clone()));
    let opened = recover::open(&config(Path::new("/data")), &host).unwrap();
    let (store, mut machine) = parts(host, opened);
    let id = EntryId { term: 3, index: 9 };
    let base = StampBase { id: Some(id), position: SEGMENT_BYTES, ..StampBase::default() };
    let snapshot = Checkpoint { base, state: Bytes::new() };
    let meta = SnapshotMetaOf { last_log_id: Some(log_id(id)), ..Default::default() };
    store.shared().checkpoints.save_snapshot(&snapshot).unwrap();
    disk.set_capacity(Some(disk.used()));
    machine.install_snapshot(&meta, SnapshotContent::Stored(SEGMENT_BYTES)).await.unwrap();
    assert_eq!(store.shared().applied_position.load(Ordering::Acquire), SEGMENT_BYTES);
    // One that is not there: nothing is said to be applied.
    assert!(machine.install_snapshot(&meta, SnapshotContent::Stored(2 * SEGMENT_BYTES)).await.is_err());
    assert_eq!(store.shared().applied_position.load(Ordering::Acquire), SEGMENT_BYTES);
}

/// A state as of now was what a leader with damaged snapshots sent: it lacks all messages that are retained.
#[tokio::test]
async fn snapshots_i1_openraft_is_given_no_state_but_that_of_the_logs_first_record() {
    let (_dir, mut store, mut machine) = Builder.build().await.unwrap();
    let id = |index| EntryId { term: 1, index };
    store.blocking_append((0..5).map(|index| LogEntry::new_blank(log_id(id(index))))).await.unwrap();
    assert!(machine.get_current_snapshot().await.unwrap().is_none(), "nobody needs one");
    assert!(machine.try_create_snapshot_builder(true).await.is_none(), "of now");
    store.purge(log_id(id(2))).await.unwrap();
    let current = machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(
        current.meta.last_log_id,
        Some(log_id(id(2))),
        "it is not there, and no other is given for it"
    );
    let (position, _) = crate::snapshots::begin(&store.shared().log).unwrap();
    assert!(matches!(current.snapshot, SnapshotContent::Stored(at) if at == position));
    assert_eq!(store.shared().snapshots.count(), 0);
    assert!(crate::snapshots::load(store.shared(), position).is_err());
    assert_eq!(store.shared().snapshots.count(), 1, "it is noted, to be repaired");
}

/// What the applying task is held up by a checkpoint of 100,000 groups with four offsets each: it was the copying and
/// encoding of all of them. Printed with `--nocapture`.
#[tokio::test]
async fn a_capture_of_the_state_takes_less_than_10_ms_however_many_offsets_there_are() {
    const GROUPS: u64 = 100_000;
    let (_dir, store, machine) = Builder.build().await.unwrap();
    let commit = |group: u64, offset| OffsetCommit {
        group: format!("consumer-group-{group:06}"),
        topic: "orders".into(),
        queue: (offset % 4) as u32,
        offset,
    };
    let commits = (0..GROUPS).flat_map(|group| (0..4).map(move |offset| commit(group, offset)));
    store.shared().state.write().apply(CommitOffsets(commits.collect()));
    let timed = |work: &mut dyn FnMut()| {
        let began = Instant::now();
        work();
        began.elapsed()
    };
    let (mut captures, mut changes) = (Vec::new(), Vec::new());
    for round in 0..20 {
        let mut captured = None;
        captures.push(timed(&mut || captured = Some(machine.capture())));
        // The first changes after it copy what they touch.
        let all_over = (0..1_000).map(|at| commit(at * (GROUPS / 1_000), round)).collect();
        let command = CommitOffsets(all_over);
        changes.push(timed(&mut || drop(store.shared().state.write().apply(command.clone()))));
        drop(captured);
    }
    let encoding = timed(&mut || drop(machine.capture().encode()));
    captures.sort();
    changes.sort();
    println!(
        "capture {:?} (median), 1,000 offsets all over behind it {:?}, encoding elsewhere {encoding:?}",
        captures[10], changes[10]
    );
    assert!(captures[0] < Duration::from_millis(10), "{captures:?}");
}

/// A message without body and properties.
pub(crate) fn message(topic: &str, queue_id: u32) -> folio_protocol::message::NewMessage {
    let host = ([127, 0, 0, 1], 1).into();
    folio_protocol::message::NewMessage {
        topic: topic.into(),
        queue_id,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 0,
        born_host: host,
        store_timestamp: 0,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: bytes::Bytes::new(),
        properties: bytes::Bytes::new(),
    }
}
