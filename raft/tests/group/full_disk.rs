//! A full disk ends no node (`room.I1`): sends are refused in time, retention goes on and makes room, a start works, and all
//! goes on by itself once there is room. One node on a simulated disk, which refuses what ext4 does.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use folio_engine::disk::sim::SimDisk;
use folio_engine::disk::{Disk, OpenMode, RESERVE_BYTES};
use folio_protocol::message::NewMessage;
use folio_raft::config::{Flush, GroupConfig, Retention, Scrub, Timing};
use folio_raft::group::{Group, StartError};
use folio_raft::proposal::{Proposal, ProposeError, Receipt, Repeat};
use folio_raft::status::Role;
use folio_raft::types::NodeAddress;
use tokio::sync::oneshot;

use crate::cluster::{NoHooks, PATIENCE, message, steady};

mod what_waits;

const SEGMENT_BYTES: u64 = 64 << 10;

/// How a node is started.
#[derive(Clone, Copy)]
struct Setup {
    segment_bytes: u64,
    retain: Option<u64>,
    retain_for: Option<Duration>,
    retain_every: Duration,
    flush: Flush,
}

const USUAL: Setup = Setup {
    segment_bytes: SEGMENT_BYTES,
    retain: None,
    retain_for: None,
    retain_every: Duration::from_millis(300),
    flush: Flush::Sync,
};
const HOUR: Duration = Duration::from_secs(3600);

type Nodes = BTreeMap<u64, NodeAddress>;

fn config(setup: Setup, id: u64, nodes: &Nodes) -> GroupConfig {
    GroupConfig {
        node_id: id,
        cluster: "c".into(),
        group: "g".into(),
        data_dir: "/data".into(),
        segment_bytes: setup.segment_bytes,
        nodes: nodes.clone(),
        dial: Default::default(),
        join: false,
        single_node: nodes.len() == 1,
        listen: nodes[&id].raft.parse().unwrap_or(([127, 0, 0, 1], 0).into()),
        flush: setup.flush,
        // Several nodes: the story chooses its leader.
        timing: if nodes.len() > 1 { steady() } else { Timing::default() },
        retention: Retention { age: setup.retain_for, bytes: setup.retain, interval: setup.retain_every },
        scrub: Scrub { bytes_per_second: 0, ..Scrub::default() },
        secret: None,
        dedup: None,
    }
}

async fn try_start_of(disk: &SimDisk, setup: Setup, id: u64, nodes: &Nodes) -> Result<Group, StartError> {
    let config = config(setup, id, nodes);
    tokio::time::timeout(PATIENCE, Group::start(config, Arc::new(disk.clone()), Arc::new(NoHooks)))
        .await
        .unwrap()
}

async fn try_start(disk: &SimDisk, setup: Setup) -> Result<Group, StartError> {
    try_start_of(disk, setup, 1, &[(1, NodeAddress::default())].into()).await
}

async fn start(disk: &SimDisk, setup: Setup) -> Group {
    let group = try_start(disk, setup).await.unwrap();
    let mut status = group.watch();
    let leads = status.wait_for(|status| status.role == Role::Leader);
    tokio::time::timeout(PATIENCE, leads).await.unwrap().unwrap();
    group
}

async fn stop(group: Group) {
    tokio::time::timeout(PATIENCE, group.shutdown()).await.unwrap();
}

type Answer = oneshot::Receiver<Result<Receipt, ProposeError>>;

/// Hands in messages of `bytes` each, all for one queue.
fn propose(group: &Group, count: usize, bytes: usize) -> Result<Answer, ProposeError> {
    propose_messages(group, vec![message(0, vec![b'x'; bytes]); count])
}

fn propose_messages(group: &Group, messages: Vec<NewMessage>) -> Result<Answer, ProposeError> {
    let (answer, answered) = oneshot::channel();
    let reply = Box::new(move |result| drop(answer.send(result)));
    let proposal = Proposal { messages, repeat: Repeat::Store, reply };
    group.propose(proposal).map(|()| answered).map_err(|(_, error)| error)
}

async fn send(group: &Group, count: usize, bytes: usize) -> Result<Receipt, ProposeError> {
    tokio::time::timeout(PATIENCE, propose(group, count, bytes)?).await.unwrap().unwrap()
}

async fn send_messages(group: &Group, messages: Vec<NewMessage>) -> Result<Receipt, ProposeError> {
    tokio::time::timeout(PATIENCE, propose_messages(group, messages)?).await.unwrap().unwrap()
}

#[track_caller]
fn eventually(what: &str, deadline: Instant, done: bool) -> bool {
    assert!(done || Instant::now() < deadline, "not so in {PATIENCE:?}: {what}");
    done
}

/// Sends until a message is stored.
async fn serves_again(group: &Group) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let sent = send(group, 1, 10).await;
        if eventually(&format!("a message is stored: {sent:?}"), deadline, sent.is_ok()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[track_caller]
fn is_well(group: &Group) {
    assert_eq!(group.log().state().poisoned, None, "room.I1");
    assert!(!matches!(group.status().role, Role::Stopped(_)), "room.I1: {:?}", group.status().role);
}

fn fill(disk: &SimDisk) {
    disk.set_capacity(Some(disk.used()));
}

fn unit_count(group: &Group) -> u64 {
    group.queues().bounds("orders", 0).map_or(0, |bounds| bounds.1)
}

/// Several segments, and a clean stop.
async fn some_segments(disk: &SimDisk) {
    let group = start(disk, USUAL).await;
    for _ in 0..80 {
        send(&group, 10, 500).await.unwrap();
    }
    stop(group).await;
}

/// The purge wrote `start` anew, found no block for it, and the log counted as failed: on all replicas at once, and again
/// after every start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_goes_on_on_a_full_disk_and_makes_the_room_to_serve_again() {
    let disk = SimDisk::new();
    some_segments(&disk).await;
    // An earlier version kept nothing back.
    disk.remove(Path::new("/data/reserve")).unwrap();
    fill(&disk);
    let group = start(&disk, Setup { retain: Some(2 * SEGMENT_BYTES), ..USUAL }).await;
    let deadline = Instant::now() + PATIENCE;
    while !eventually("old segments go", deadline, group.log().state().start_position > 0) {
        is_well(&group);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    is_well(&group);
    serves_again(&group).await;
}

/// With old segments to drop a group stood still until its next look, a minute later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_i1_a_full_disk_does_not_wait_for_the_next_interval() {
    let disk = SimDisk::new();
    some_segments(&disk).await;
    disk.remove(Path::new("/data/reserve")).unwrap();
    fill(&disk);
    let at_once = Some(Duration::from_millis(1));
    let group = start(&disk, Setup { retain_for: at_once, retain_every: HOUR, ..USUAL }).await;
    serves_again(&group).await;
    assert!(group.log().state().start_position > 0);
}

/// A fast writer made a log as much larger than it was to be as it wrote in a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_i1_a_log_that_grows_fast_stays_near_its_bound() {
    let disk = SimDisk::new();
    let group = start(&disk, Setup { retain: Some(2 * SEGMENT_BYTES), retain_every: HOUR, ..USUAL }).await;
    for _ in 0..80 {
        send(&group, 10, 500).await.unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    let size = || {
        let log = group.log().state();
        log.next_position - log.start_position
    };
    // And the rest of the segment before the first one kept, and what is kept longer than leaders pop from it (`pop.I4`).
    while !eventually(
        "the log is near its bound",
        deadline,
        size() < 3 * SEGMENT_BYTES + SEGMENT_BYTES / 4 + 8192,
    ) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_an_earlier_version_on_a_full_disk_is_purged_once_there_is_a_block() {
    let disk = SimDisk::new();
    some_segments(&disk).await;
    for file in ["/data/reserve", "/data/start"] {
        disk.remove(Path::new(file)).unwrap();
    }
    disk.set_capacity(Some(0));
    let group = start(&disk, Setup { retain: Some(2 * SEGMENT_BYTES), ..USUAL }).await;
    let refused = send(&group, 1, 10).await;
    assert_eq!(refused, Err(ProposeError::DiskFull));
    tokio::time::sleep(Duration::from_secs(1)).await;
    is_well(&group);
    assert_eq!(group.log().state().start_position, 0);
    disk.set_capacity(Some(disk.used() + 12_288));
    serves_again(&group).await;
    assert!(group.log().state().start_position > 0);
}

/// A unit that found no block ended the node, while the log had room for a hundred megabytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_cannot_grow_refuses_sends_and_goes_on_with_room() {
    let disk = SimDisk::new();
    let group = start(&disk, Setup { segment_bytes: 64 << 20, ..USUAL }).await;
    send(&group, 1, 10).await.unwrap();
    fill(&disk);
    let mut acknowledged = 1;
    let refused = loop {
        match send(&group, 500, 10).await {
            Ok(_) => acknowledged += 500,
            Err(error) => break error,
        }
        assert!(acknowledged < 200_000, "the queues are not asked whether they have room");
    };
    assert_eq!(refused, ProposeError::DiskFull);
    assert!(group.log().has_room(1) && group.status().disk_full);
    is_well(&group);
    assert_eq!(unit_count(&group), acknowledged);
    disk.set_capacity(None);
    serves_again(&group).await;
    assert_eq!(unit_count(&group), acknowledged + 1);
    is_well(&group);
}

const SNAPSHOT: &str = "/data/snapshots/00000000000008388608";
const ASIDE: &str = "/data/snapshot-aside";

/// A node that has more to apply than memory may hold, on a disk without room for it.
async fn with_waiting_apply(retain_for: Option<Duration>) -> (SimDisk, Group, u64) {
    const SENT: u64 = 130_000;
    let setup = Setup { segment_bytes: 8 << 20, ..USUAL };
    let disk = SimDisk::new();
    let group = start(&disk, setup).await;
    for _ in 0..SENT / 500 {
        send(&group, 500, 10).await.unwrap();
    }
    let killed = disk.kill();
    stop(group).await;
    // They would say that there are units.
    killed.remove(Path::new("/data/checkpoint")).ok();
    killed.rename(Path::new(SNAPSHOT), Path::new(ASIDE)).unwrap();
    // An opening makes the next segment anew, and would leave its room to others meanwhile.
    killed.remove(Path::new("/data/commitlog/00000000000016777216")).unwrap();
    let queue = killed.list(Path::new("/data/consumequeue/orders/0")).unwrap();
    let bytes = killed.open(&queue[0], OpenMode::Read).unwrap().len().unwrap();
    // The reserve is given back for that snapshot.
    let freed = bytes.next_multiple_of(4096) + RESERVE_BYTES;
    killed.set_capacity(Some(killed.used() - freed - 3 * 4096));
    let group = start(&killed, Setup { retain_for, retain_every: HOUR, ..setup }).await;
    let deadline = Instant::now() + PATIENCE;
    // A quarter of a segment, in units of 20 bytes.
    let held = 104_000;
    while !eventually("units wait in memory", deadline, unit_count(&group) > held) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (killed, group, SENT)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_apply_that_waits_for_room_stops_neither_the_leader_nor_reads_and_goes_on() {
    let (disk, group, sent) = with_waiting_apply(None).await;
    let term = group.status().term;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(unit_count(&group) < sent, "queues.I6: memory is bounded");
    is_well(&group);
    assert_eq!((group.status().role, group.status().term), (Role::Leader, term));
    assert_eq!(group.queues().units("orders", 0, 50_000, 10).unwrap().len(), 10);
    assert_eq!(send(&group, 1, 10).await, Err(ProposeError::DiskFull));
    disk.set_capacity(None);
    serves_again(&group).await;
    assert_eq!(unit_count(&group), sent + 1);
}

/// openraft takes no snapshot while apply waits, and retention waited for the snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_i2_old_segments_go_while_apply_waits_for_room() {
    let (disk, group, sent) = with_waiting_apply(Some(Duration::from_millis(1))).await;
    disk.rename(Path::new(ASIDE), Path::new(SNAPSHOT)).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !eventually("an old segment goes", deadline, group.log().state().start_position > 0) {
        is_well(&group);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Its room is the next segment's. openraft hears of it once it does not wait any more.
    disk.set_capacity(None);
    serves_again(&group).await;
    assert_eq!(unit_count(&group), sent + 1);
    is_well(&group);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_stops_cleanly_while_apply_waits_for_room() {
    let (disk, group, sent) = with_waiting_apply(None).await;
    let begun = Instant::now();
    stop(group).await;
    assert!(begun.elapsed() < PATIENCE / 2, "it took {:?}", begun.elapsed());
    disk.set_capacity(None);
    let group = start(&disk, Setup { segment_bytes: 8 << 20, ..USUAL }).await;
    serves_again(&group).await;
    assert_eq!(unit_count(&group), sent + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_on_a_full_disk_in_both_modes_after_every_kind_of_end() {
    for flush in [Flush::Sync, Flush::Async] {
        for (killed, reserve) in [(false, true), (false, false), (true, true), (true, false)] {
            let (mut disk, setup) = (SimDisk::new(), Setup { flush, ..USUAL });
            let group = start(&disk, setup).await;
            send(&group, 1, 100).await.unwrap();
            if killed {
                let left = disk.kill();
                stop(group).await;
                disk = left;
            } else {
                stop(group).await;
            }
            if !reserve {
                disk.remove(Path::new("/data/reserve")).unwrap();
            }
            fill(&disk);
            let group = start(&disk, setup).await;
            is_well(&group);
            let deadline = Instant::now() + PATIENCE;
            while !eventually("it has what it had", deadline, unit_count(&group) == 1) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            disk.set_capacity(None);
            serves_again(&group).await;
            stop(group).await;
        }
    }
}

/// They were held until there was room, for ever if need be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_taken_in_the_moment_the_disk_fills_are_answered() {
    const ANSWERED_WITHIN: Duration = Duration::from_secs(20);
    const BODY_BYTES: usize = 100_000;
    let disk = SimDisk::new();
    let group = start(&disk, Setup { segment_bytes: 256 << 10, ..USUAL }).await;
    send(&group, 1, 10).await.unwrap();
    let next = Path::new("/data/commitlog/00000000000000262144");
    let deadline = Instant::now() + PATIENCE;
    while !eventually("the next segment is there", deadline, disk.exists(next).unwrap()) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    // A record hangs in its sync; behind it come more than the two segments hold, and nobody has asked for a third one.
    disk.hang_syncs(true);
    let before = disk.ops();
    let mut answers = vec![propose(&group, 1, BODY_BYTES).unwrap()];
    while !eventually("the record is written", deadline, disk.ops() > before) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    fill(&disk);
    answers.extend((0..6).map(|_| propose(&group, 1, BODY_BYTES).unwrap()));
    // They are records of the log before its writer goes on.
    while !eventually("two more records", deadline, group.log().state().next_position > 2 * (256 << 10)) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    disk.hang_syncs(false);
    let deadline = tokio::time::Instant::now() + ANSWERED_WITHIN;
    let (mut stored, mut refused, mut unknown) = (0, 0, 0);
    for answer in answers {
        match tokio::time::timeout_at(deadline, answer).await.unwrap().unwrap() {
            Ok(_) => stored += 1,
            Err(ProposeError::DiskFull) => refused += 1,
            Err(ProposeError::Unknown(why)) if why.contains("disk filled") => unknown += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(stored > 0 && unknown > 0, "{stored} stored, {refused} refused, {unknown} unknown");
    is_well(&group);
    disk.set_capacity(None);
    serves_again(&group).await;
    assert_eq!(unit_count(&group), 2 + stored + unknown, "what the log has taken is stored");
}

/// A leader whose disk fills hands over; its vote for the next one waited behind its records, openraft behind the vote, and
/// retention, which would have made the room, behind openraft: for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_i2_old_segments_go_while_a_vote_waits_behind_records_without_room() {
    const BODY_BYTES: usize = 100_000;
    const SEGMENT_BYTES: u64 = 256 << 10;
    let nodes: Nodes = (1..=3).map(|id| (id, crate::cluster::address())).collect();
    let disks: BTreeMap<u64, SimDisk> = nodes.keys().map(|id| (*id, SimDisk::new())).collect();
    let retain_for = Some(Duration::from_millis(1));
    let setup = Setup { segment_bytes: SEGMENT_BYTES, retain_for, retain_every: HOUR, ..USUAL };
    let mut groups: BTreeMap<u64, Group> = BTreeMap::new();
    for (id, disk) in &disks {
        groups.insert(*id, try_start_of(disk, setup, *id, &nodes).await.unwrap());
    }
    let deadline = Instant::now() + PATIENCE;
    let leader_of = |groups: &BTreeMap<u64, Group>| {
        groups.iter().find(|(_, group)| group.status().role == Role::Leader).map(|(id, _)| *id)
    };
    // On a busy machine the first leader may be replaced a moment after its election: the story is of one that stays.
    let old = loop {
        while !eventually("a leader", deadline, leader_of(&groups).is_some()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let leader = leader_of(&groups).unwrap();
        let mut sent = 0;
        while sent < 12 && send(&groups[&leader], 1, BODY_BYTES).await.is_ok() {
            sent += 1;
        }
        if eventually("a leader takes all", deadline, sent == 12) {
            break leader;
        }
    };
    let (group, disk) = (&groups[&old], &disks[&old]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    disk.hang_syncs(true);
    let before = disk.ops();
    let mut answers = vec![propose(group, 1, BODY_BYTES).unwrap()];
    while !eventually("the record is written", deadline, disk.ops() > before) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    fill(disk);
    // More than the segments hold that are there: this one and the next.
    let end = (group.log().state().next_position / SEGMENT_BYTES + 2) * SEGMENT_BYTES;
    while !eventually("records beyond the segments", deadline, group.log().state().next_position > end) {
        answers.extend(propose(group, 1, BODY_BYTES));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    disk.hang_syncs(false);
    // Its own status says that it leads as long as openraft waits.
    let successor = || groups.iter().find(|(id, group)| **id != old && group.status().role == Role::Leader);
    while !eventually("another leader", deadline, successor().is_some()) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let is_level = || {
        let new = successor().map(|(_, group)| group.status().applied_position);
        new.is_some_and(|new| group.status().applied_position >= new)
    };
    while !eventually("it makes room and follows", deadline, group.log().has_room(1) && is_level()) {
        is_well(group);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(group.log().state().start_position > 0);
}
