//! One node on a simulated disk. Its segments are smaller than a batch of messages may become: no record is larger than its
//! log takes. It ends when its log is poisoned. And what it finds at a start, and what it does not look at for it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use folio_engine::disk::Disk;
use folio_engine::disk::sim::{Fault, LoseAll, SimDisk};
use folio_protocol::message::NewMessage;
use folio_protocol::properties::{self, UNIQUE_KEY};
use folio_raft::config::{DedupConfig, Flush, GroupConfig, Retention, Scrub, Timing};
use folio_raft::group::{Group, Hooks};
use folio_raft::proposal::{Proposal, ProposeError, Receipt, Repeat};
use folio_raft::status::Role;
use folio_raft::types::NodeAddress;
use folio_state::{LockQueues, QueueRef};

use crate::cluster::{NoHooks, PATIENCE, message};

async fn leader() -> Group {
    leader_on(SimDisk::new()).await
}

async fn leader_on(disk: SimDisk) -> Group {
    start_on(disk, None).await
}

async fn start_on(disk: SimDisk, dedup: Option<DedupConfig>) -> Group {
    start_with(disk, dedup, NoHooks).await
}

pub(crate) async fn start_with(disk: SimDisk, dedup: Option<DedupConfig>, hooks: impl Hooks) -> Group {
    let config = GroupConfig {
        node_id: 1,
        cluster: "c".into(),
        group: "g".into(),
        data_dir: "/data".into(),
        segment_bytes: 64 << 10,
        nodes: [(1, NodeAddress::default())].into(),
        dial: Default::default(),
        join: false,
        single_node: true,
        listen: ([127, 0, 0, 1], 0).into(),
        flush: Flush::Sync,
        timing: Timing::default(),
        retention: Retention::default(),
        scrub: Scrub::default(),
        secret: None,
        dedup,
    };
    let started = Group::start(config, Arc::new(disk), Arc::new(hooks));
    let group = tokio::time::timeout(PATIENCE, started).await.unwrap().unwrap();
    let mut status = group.watch();
    let leads = status.wait_for(|status| status.role == Role::Leader);
    tokio::time::timeout(PATIENCE, leads).await.unwrap().unwrap();
    group
}

async fn send(group: &Group, bytes: usize) -> Result<Receipt, ProposeError> {
    send_under(group, bytes, None).await
}

/// A message under a key that a retry repeats.
pub(crate) async fn send_under(
    group: &Group,
    bytes: usize,
    key: Option<&str>,
) -> Result<Receipt, ProposeError> {
    send_to(group, 0, bytes, key).await
}

async fn send_to(
    group: &Group,
    queue: u32,
    bytes: usize,
    key: Option<&str>,
) -> Result<Receipt, ProposeError> {
    let mut properties = BytesMut::new();
    key.iter().for_each(|key| properties::append(&mut properties, UNIQUE_KEY, key));
    let message = NewMessage { properties: properties.freeze(), ..message(queue, vec![b'x'; bytes]) };
    let (answer, answered) = tokio::sync::oneshot::channel();
    let reply = Box::new(move |result| drop(answer.send(result)));
    group
        .propose(Proposal {
            messages: vec![message],
            repeat: if key.is_some() { Repeat::Same } else { Repeat::Store },
            reply,
        })
        .map_err(|(_, error)| error)?;
    answered.await.unwrap()
}

/// A queue takes more than that in a command.
const QUEUE_BYTES_MIN: usize = 12;

/// Messages that waited together were put into one record, whatever the segment's size: the log refused it, and the node
/// stopped. A command that no record holds stopped it too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_larger_than_a_segment_stopped_the_leader() {
    let leader = leader().await;
    let burst = (0..400).map(|_| send(&leader, 500));
    let answers = futures_util::future::join_all(burst).await;
    assert!(answers.iter().all(Result::is_ok), "{:?}", answers.iter().find(|answer| answer.is_err()));
    let limit = leader.log().record_bytes_max();
    let queues = vec![QueueRef { topic: "huge".into(), queue: 0 }; limit / QUEUE_BYTES_MIN];
    let (group, client) = ("g".into(), "c".into());
    let refused = leader.execute(LockQueues { group, client, queues, now_ms: 1, ttl_ms: 1 }).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge { .. })), "{refused:?}");
    let refused = send(&leader, limit).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge { .. })), "{refused:?}");
    assert_eq!(send(&leader, 500).await.unwrap().queue_offsets[..], [400]);
    leader.shutdown().await;
}

/// Found by the harness: such a node stayed what it was until somebody wrote to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_log_is_poisoned_ends_though_nobody_writes_to_it() {
    let disk = SimDisk::new();
    let group = leader_on(disk.clone()).await;
    (disk.ops()..disk.ops() + 100_000).for_each(|op| disk.fail_at(op, Fault::FailSync));
    // A vote that openraft does not know of: it is not told of the failure.
    group.log().save_vote(b"any", Box::new(|_| ()));
    let mut status = group.watch();
    let stopped = status.wait_for(|status| matches!(status.role, Role::Stopped(_)));
    tokio::time::timeout(PATIENCE, stopped).await.unwrap().unwrap();
}

/// Of a start with 24 GB of log and a cold page cache after `kill -9` four seconds were spent, three of them in reading old
/// segments to find where terms begin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t90_a_start_does_not_search_old_segments_for_the_terms() {
    let disk = SimDisk::new();
    for _ in 0..4 {
        let group = leader_on(disk.clone()).await;
        for _ in 0..5 {
            send(&group, 3_000).await.unwrap();
        }
        group.shutdown().await;
    }
    let group = leader_on(disk.clone()).await;
    while group.log().segment_starts().len() < 4 {
        send(&group, 10_000).await.unwrap();
    }
    let terms = group.watch().borrow().term;
    group.shutdown().await;
    // Whoever reads the first segment behind its first record has to wait for it to be mended, which nobody can.
    let first = Path::new("/data/commitlog/00000000000000000000");
    (1_000..60_000).step_by(50).for_each(|at| disk.flip_bit(first, at, 3).unwrap());
    let group = leader_on(disk.clone()).await;
    assert_eq!(group.watch().borrow().term, terms + 1);
    assert!(send(&group, 100).await.is_ok());
    group.shutdown().await;
}

/// A retry that comes as soon as the node is back, while what it is recognised by is still being read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dedup_i2_a_retry_right_after_a_restart_gets_the_firsts_place() {
    let dedup = Some(DedupConfig::default());
    let mut disk = SimDisk::new();
    let mut receipts: Vec<Receipt> = Vec::new();
    for round in 0..6 {
        let group = start_on(disk.clone(), dedup.clone()).await;
        for (number, receipt) in receipts.iter().enumerate().rev() {
            let again = send_under(&group, 2_000, Some(&format!("K{number}"))).await.unwrap();
            assert_eq!(
                (&again.queue_offsets, &again.positions),
                (&receipt.queue_offsets, &receipt.positions)
            );
        }
        for number in receipts.len()..receipts.len() + 40 {
            receipts.push(send_under(&group, 2_000, Some(&format!("K{number}"))).await.unwrap());
        }
        // A clean stop leaves a checkpoint of everything; a kill and a power cut leave the one of the stop before.
        let after = match round % 3 {
            0 => None,
            1 => Some(disk.kill()),
            _ => Some(disk.crash(&mut LoseAll)),
        };
        group.shutdown().await;
        disk = after.unwrap_or(disk);
    }
}

/// More queues than a checkpoint writes to their files: what it leaves out is saved beside, and a start takes it from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tails_of_hundreds_of_queues_survive_a_stop_a_kill_a_power_cut_and_their_own_loss() {
    const QUEUES: u32 = 600;
    let tails = Path::new("/data/consumequeue.tails");
    let mut disk = SimDisk::new();
    for round in 0..6 {
        let group = leader_on(disk.clone()).await;
        let all_have = |count| {
            (0..QUEUES).all(|queue| {
                let units = group.queues().units("orders", queue, 0, 100).unwrap();
                units.len() == count && units.windows(2).all(|pair| pair[0].position < pair[1].position)
            })
        };
        // What came after the checkpoint is applied while the node leads already.
        let started = Instant::now();
        while !all_have(round) {
            assert!(started.elapsed() < PATIENCE, "after {round} rounds");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let sent = (0..QUEUES).map(|queue| send_to(&group, queue, 100, None));
        let sent = futures_util::future::join_all(sent).await;
        let offset = round as u64;
        assert!(sent.iter().all(|sent| sent.as_ref().unwrap().queue_offsets[..] == [offset]));
        assert!(all_have(round + 1), "in round {round}");
        let after = match round % 3 {
            0 => None,
            1 => Some(disk.kill()),
            _ => Some(disk.crash(&mut LoseAll)),
        };
        group.shutdown().await;
        assert!(disk.exists(tails).unwrap(), "{QUEUES} queues have no tails");
        disk = after.unwrap_or(disk);
        if round == 3 {
            disk.flip_bit(tails, 1000, 3).unwrap();
        }
    }
}
