//! openraft's own storage test suite, on our log, queues and metadata.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use folio_engine::checkpoint::Checkpoint;
use folio_engine::disk::sim::{LoseAll, SimDisk};
use folio_engine::disk::{Disk, RealDisk};
use folio_engine::log::StampBase;
use folio_engine::queues::Arrival;
use folio_engine::record::EntryId;
use openraft::StorageError;
use openraft::base::BoxFuture;
use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use parking_lot::{Mutex, RwLock};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::config::{DedupConfig, Flush, GroupConfig, Retention, Timing};
use crate::group::{
    Hooks,
    recover::{self, Recovered},
};
use crate::host::Host;
use crate::lease_clock::LeaseClock;
use crate::log_store::LogStore;
use crate::shared::{Durable, Shared};
use crate::state_machine::{StateMachine, snapshot_of};
use crate::terms::Terms;
use crate::types::{LogEntry, TypeConfig, log_id};

const SEGMENT_BYTES: u64 = 64 << 10;

struct NoHooks;

impl Hooks for NoHooks {
    fn call(&self, _: u64, request: Bytes) -> BoxFuture<'static, Bytes> {
        Box::pin(std::future::ready(request))
    }
    fn applied(&self, _: &[Arrival]) {}
    fn metadata_changed(&self) {}
}

struct Builder;

fn config(dir: &Path) -> GroupConfig {
    GroupConfig {
        node_id: 0,
        cluster: "test".into(),
        group: "test".into(),
        data_dir: dir.to_owned(),
        segment_bytes: SEGMENT_BYTES,
        nodes: Default::default(),
        dial: Default::default(),
        join: false,
        listen: ([127, 0, 0, 1], 0).into(),
        flush: Flush::Sync,
        timing: Timing::default(),
        retention: Retention::default(),
        scrub: Default::default(),
        dedup: Some(DedupConfig::default()),
    }
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
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

fn parts(host: Host, opened: Recovered) -> (LogStore, StateMachine) {
    let shared = Arc::new(Shared {
        log: opened.log,
        queues: opened.queues,
        metadata: RwLock::default(),
        lease_clock: LeaseClock::new(0),
        checkpoints: opened.checkpoints,
        durable: watch::Sender::new(Durable::default()),
        hooks: Arc::new(NoHooks),
        pending_reset: Mutex::default(),
        retain_from: Mutex::default(),
        applied_index: AtomicU64::new(0),
        applied_position: AtomicU64::new(0),
        applied_term: AtomicU64::new(0),
        terms: Default::default(),
        dedup: opened.dedup,
        segment_bytes: SEGMENT_BYTES,
        calls: AtomicUsize::new(0),
        standing: Default::default(),
        rot: Default::default(),
    });
    let machine = StateMachine::new(host, shared.clone(), opened.state.membership, &opened.base);
    (LogStore::new(shared), machine)
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
async fn a_node_holds_what_is_durable_in_its_log_under_the_same_term() {
    let (_dir, mut store, _) = Builder.build().await.unwrap();
    let blank = |index| LogEntry::new_blank(log_id(EntryId { term: 2, index }));
    store.blocking_append((0..5).map(blank)).await.unwrap();
    let holds = |term, index| store.shared().holds(EntryId { term, index });
    assert!(holds(2, 0) && holds(2, 4));
    assert!(!holds(1, 4) && !holds(3, 4), "another leader's entry");
    assert!(!holds(2, 5), "not there yet");
    store.shared().note_truncated(Some(3));
    assert!(holds(2, 3) && !holds(2, 4), "written, but not durable");
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
    let base = StampBase {
        id: Some(EntryId { term: 3, index: 9 }),
        position: SEGMENT_BYTES,
        ..StampBase::default()
    };
    let snapshot = Checkpoint { base, state: Bytes::new() };
    let mut meta = snapshot_of(snapshot.clone()).unwrap().meta;
    store.shared().checkpoints.save_snapshot(&snapshot).unwrap();
    disk.set_capacity(Some(disk.used()));
    machine.install_snapshot(&meta, snapshot.clone()).await.unwrap();
    assert_eq!(store.shared().applied_position.load(Ordering::Acquire), SEGMENT_BYTES);
    // One that is not there, and cannot be written: nothing is said to be applied.
    let id = EntryId { term: 3, index: 20 };
    meta.last_log_id = Some(log_id(id));
    let base = StampBase { id: Some(id), position: 2 * SEGMENT_BYTES, ..snapshot.base };
    assert!(machine.install_snapshot(&meta, Checkpoint { base, state: Bytes::new() }).await.is_err());
    assert_eq!(store.shared().applied_position.load(Ordering::Acquire), SEGMENT_BYTES);
}
