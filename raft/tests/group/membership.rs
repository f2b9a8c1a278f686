//! Groups whose members are not those of their birth any more, and disks that are lost in them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use folio_engine::disk::RealDisk;
use folio_raft::config::{Flush, GroupConfig, Timing};
use folio_raft::group::{AdminError, Group};
use folio_raft::status::{Role, Status};
use folio_state::{CreateTopic, Topic};
use tempfile::TempDir;

use crate::cluster::{Cluster, Echo, PATIENCE, address, no_retention, send, steady};
use crate::files::copy;

/// How long a group that must not elect anybody is watched once its nodes have said that they wait: several elections.
const QUIET: Duration = Duration::from_secs(2);

/// Starts a node whose configuration lists these nodes.
async fn boot(cluster: &mut Cluster, id: u64, listed: &[u64], join: bool) {
    boot_with(cluster, id, listed, |config| config.join = join).await;
}

async fn boot_with(cluster: &mut Cluster, id: u64, listed: &[u64], change: impl FnOnce(&mut GroupConfig)) {
    let nodes: BTreeMap<_, _> = listed.iter().map(|id| (*id, cluster.nodes[id].clone())).collect();
    let mut config = GroupConfig { nodes, single_node: false, ..cluster.config(id, false) };
    change(&mut config);
    let group = Group::start(config, Arc::new(RealDisk), Arc::new(Echo)).await.unwrap();
    cluster.groups.insert(id, group);
}

/// Has whoever leads do something to the membership, until it is done.
async fn change<F: Future<Output = Result<(), AdminError>>>(cluster: &Cluster, done: impl Fn(Group) -> F) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = done(cluster.leader().await).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A new node starts and waits to be added; its configuration lists itself and these.
async fn join(cluster: &mut Cluster, id: u64, listed: &[u64]) {
    cluster.nodes.insert(id, address());
    cluster.dirs.insert(id, TempDir::new().unwrap());
    boot(cluster, id, &[listed, &[id]].concat(), true).await;
}

/// Found by the simulation: then one member that lost something left too few with a whole log, and no leader was elected any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn members_i1_an_empty_node_was_made_a_voter() {
    let mut cluster = Cluster::start(1..=3, no_retention(), steady()).await;
    cluster.send_all(0..2_000).await;
    join(&mut cluster, 4, &[1, 2, 3]).await;
    let (leader, at) = (cluster.leader().await, cluster.nodes[&4].clone());
    let last = leader.status().last;
    leader.add_learner(4, at).await.unwrap();
    leader.promote(4).await.unwrap();
    let new = cluster.groups[&4].status();
    assert!(new.last >= last, "{:?} of {last:?}", new.last);
}

/// A new node joins and votes.
async fn add(cluster: &mut Cluster, id: u64, listed: &[u64]) {
    join(cluster, id, listed).await;
    let at = cluster.nodes[&id].clone();
    change(cluster, |leader| {
        let at = at.clone();
        async move { leader.add_learner(id, at).await }
    })
    .await;
    change(cluster, |leader| async move { leader.promote(id).await }).await;
    votes_again(cluster, id).await;
}

async fn remove(cluster: &mut Cluster, id: u64) {
    let deadline = Instant::now() + PATIENCE;
    // A leader that removes itself may be none any more before it is told that this is done.
    while cluster.leader().await.status().members.contains_key(&id) {
        assert!(Instant::now() < deadline, "node {id} is not removed");
        let _ = cluster.leader().await.remove_member(id).await;
    }
    cluster.stop(id).await;
}

/// A group of one voter that may grow: founded with the key `single_node`, restarted without it.
async fn born_alone() -> Cluster {
    let mut cluster = Cluster::start([1], no_retention(), Timing::default()).await;
    cluster.leader().await;
    cluster.stop(1).await;
    boot(&mut cluster, 1, &[1], false).await;
    cluster
}

fn lose_disk(cluster: &mut Cluster, id: u64) {
    cluster.dirs.insert(id, TempDir::new().unwrap());
}

async fn until(cluster: &Cluster, id: u64, what: &str, holds: impl Fn(&Status) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = cluster.groups[&id].status();
        if holds(&status) {
            return;
        }
        assert!(Instant::now() < deadline, "node {id} {what}: {status:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn votes_again(cluster: &Cluster, id: u64) {
    let marker = cluster.dirs[&id].path().join("catching-up");
    until(cluster, id, "never votes again", |status| !marker.exists() && status.waiting.is_none()).await;
}

/// Each node named has said that it waits, and then nobody leads for a while.
async fn nobody_leads(cluster: &Cluster, waiting: &[u64]) {
    for id in waiting {
        until(cluster, *id, "does not say what it waits for", |status| status.waiting.is_some()).await;
    }
    let quiet = Instant::now() + QUIET;
    while Instant::now() < quiet {
        for group in cluster.groups.values() {
            assert_ne!(group.status().role, Role::Leader, "{:#?}", group.status());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Every message of so many is on every node that runs, once.
async fn holds_all(cluster: &Cluster, messages: u64) {
    cluster.assert_identical().await;
    for group in cluster.groups.values() {
        let ends = (0..4).map(|queue| group.queues().bounds("orders", queue).map_or(0, |bounds| bounds.1));
        assert_eq!(ends.sum::<u64>(), messages, "node {}", group.node_id());
    }
}

/// Born as one node and grown to three. Its first node founded a second group on an empty disk, and acknowledged sends that
/// the others never saw.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn founding_i1_an_empty_disk_in_a_grown_group_founds_no_second_one() {
    let mut cluster = born_alone().await;
    add(&mut cluster, 2, &[1]).await;
    add(&mut cluster, 3, &[1]).await;
    cluster.send_all(0..40).await;
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    lose_disk(&mut cluster, 1);
    boot(&mut cluster, 1, &[1], false).await;
    nobody_leads(&cluster, &[1]).await;
    let waiting = cluster.groups[&1].status().waiting.unwrap();
    assert!(waiting.contains("single_node = true") && waiting.contains("join = true"), "{waiting}");
    assert!(send(&cluster.groups[&1], 9000).await.is_err());
    for id in 2..=3 {
        boot(&mut cluster, id, &[1, id], true).await;
    }
    // Its configuration knows nobody: it hears of its group from the leader that calls it.
    cluster.send_all(40..60).await;
    votes_again(&cluster, 1).await;
    holds_all(&cluster, 60).await;
    let ids: Vec<_> = cluster.groups.values().map(|group| group.status().group_id.unwrap()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

/// The same with a member that was away: it was elected with the vote of the empty node, and what the two that are left out
/// had acknowledged was gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn founding_i2_an_empty_disk_in_a_grown_group_votes_for_nobody_who_lacks_messages() {
    let mut cluster = born_alone().await;
    add(&mut cluster, 2, &[1]).await;
    add(&mut cluster, 3, &[1]).await;
    cluster.send_all(0..40).await;
    cluster.stop(3).await;
    cluster.send_all(40..100).await;
    cluster.stop(1).await;
    cluster.stop(2).await;
    lose_disk(&mut cluster, 1);
    boot(&mut cluster, 3, &[1, 3], true).await;
    boot(&mut cluster, 1, &[1], false).await;
    nobody_leads(&cluster, &[1]).await;
    boot(&mut cluster, 2, &[1, 2], true).await;
    cluster.send_all(100..110).await;
    votes_again(&cluster, 1).await;
    holds_all(&cluster, 110).await;
}

/// Born as 1, 2, 3; 4 replaced 3; then 2 lost its disk and asked the removed 3 for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn census_i1_a_removed_member_is_not_waited_for() {
    let mut cluster = Cluster::start(1..=3, no_retention(), Timing::default()).await;
    cluster.send_all(0..20).await;
    add(&mut cluster, 4, &[1, 2, 3]).await;
    remove(&mut cluster, 3).await;
    cluster.send_all(20..40).await;
    cluster.stop(2).await;
    lose_disk(&mut cluster, 2);
    boot(&mut cluster, 2, &[1, 2, 3], false).await;
    votes_again(&cluster, 2).await;
    cluster.send_all(40..50).await;
    holds_all(&cluster, 50).await;
}

/// Grown to five, every member replaced one after the other, shrunk to three, each with an empty disk on the way. The
/// configurations still list the members of the birth, of which none is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_is_replaced_and_an_empty_disk_comes_back_at_each_step() {
    let mut cluster = born_alone().await;
    let (mut sent, born) = (0, [1]);
    let loses_disk = async |cluster: &mut Cluster, id: u64, sent: &mut u64| {
        cluster.send_all(*sent..*sent + 8).await;
        cluster.stop(id).await;
        lose_disk(cluster, id);
        boot(cluster, id, &[born[0], id], false).await;
        cluster.send_all(*sent + 8..*sent + 16).await;
        *sent += 16;
        votes_again(cluster, id).await;
        holds_all(cluster, *sent).await;
    };
    for id in [2, 3] {
        add(&mut cluster, id, &born).await;
    }
    loses_disk(&mut cluster, 1, &mut sent).await;
    for id in [4, 5] {
        add(&mut cluster, id, &born).await;
    }
    loses_disk(&mut cluster, 3, &mut sent).await;
    for (new, old) in [(6, 1), (7, 2), (8, 3)] {
        join(&mut cluster, new, &born).await;
        cluster.replace(old, new).await;
        cluster.stop(old).await;
        votes_again(&cluster, new).await;
        loses_disk(&mut cluster, new, &mut sent).await;
    }
    for old in [4, 5] {
        remove(&mut cluster, old).await;
        loses_disk(&mut cluster, 7, &mut sent).await;
    }
    assert_eq!(cluster.leader().await.status().voters, [6, 7, 8].into());
}

/// Of two voters one lost its disk while the other was down too: no leader can exist without its vote. It waited for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn catch_up_i2_of_two_voters_the_empty_one_elects_the_whole_one() {
    let mut cluster = born_alone().await;
    add(&mut cluster, 2, &[1]).await;
    cluster.send_all(0..40).await;
    for id in 1..=2 {
        cluster.stop(id).await;
    }
    lose_disk(&mut cluster, 1);
    boot(&mut cluster, 1, &[1, 2], false).await;
    nobody_leads(&cluster, &[1]).await;
    boot(&mut cluster, 2, &[1, 2], false).await;
    // Once it has, the other one may come to lead on a busy machine.
    assert_eq!(cluster.leader().await.node_id(), 2);
    cluster.send_all(40..60).await;
    votes_again(&cluster, 1).await;
    holds_all(&cluster, 60).await;
}

/// Two of five lost their disks: the three that are whole elect a leader, whose fence brings both back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn catch_up_i1_of_five_two_lose_their_disks_at_once() {
    let mut cluster = Cluster::start(1..=5, no_retention(), Timing::default()).await;
    cluster.send_all(0..40).await;
    let leader = cluster.leader().await.node_id();
    let lost: Vec<u64> = (1..=5).filter(|id| *id != leader).take(2).collect();
    for id in &lost {
        cluster.stop(*id).await;
        lose_disk(&mut cluster, *id);
    }
    cluster.send_all(40..50).await;
    // With one of the whole ones away, the two empty ones do not help to elect another.
    let away = cluster.leader().await.node_id();
    cluster.stop(away).await;
    for id in &lost {
        cluster.boot(*id, false).await;
    }
    for id in &lost {
        let sentence = format!("waits for node {away} to answer");
        let says =
            |status: &Status| status.waiting.as_ref().is_some_and(|waiting| waiting.contains(&sentence));
        until(&cluster, *id, "does not say what it waits for", says).await;
    }
    let waiting = cluster.groups[&lost[0]].status().waiting.unwrap();
    assert!(waiting.contains("accept-loss"), "{waiting}");
    // A leader of before may still think that it leads; it commits nothing.
    let committed = || cluster.groups.values().map(|group| group.status().committed).max();
    let before = committed();
    tokio::time::sleep(QUIET).await;
    assert_eq!(committed(), before, "founding.I4");
    cluster.boot(away, false).await;
    cluster.send_all(50..60).await;
    for id in lost {
        votes_again(&cluster, id).await;
    }
    holds_all(&cluster, 60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_could_found_a_group_alone_takes_nobody_in() {
    let mut cluster = Cluster::start([1], no_retention(), Timing::default()).await;
    let leader = cluster.leader().await;
    let refused = leader.add_learner(2, address()).await.unwrap_err().to_string();
    assert!(refused.contains("Remove that key, restart the node"), "{refused}");
    assert!(leader.promote(2).await.is_err() && leader.replace_member(1, 2, address()).await.is_err());
    cluster.stop(1).await;
    boot(&mut cluster, 1, &[1], false).await;
    cluster.execute(CreateTopic(Topic::new("orders", 4))).await;
    add(&mut cluster, 2, &[1]).await;
    cluster.send_all(0..10).await;
    holds_all(&cluster, 10).await;
    assert!(cluster.groups[&2].state().topic("orders").is_some());
}

/// A directory of another group of the same name, at the place of a member.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn group_id_i2_a_node_of_another_group_of_the_same_name_is_refused() {
    let mut other = Cluster::start([3], no_retention(), Timing::default()).await;
    other.send_all(0..5).await;
    other.stop(3).await;
    let mut cluster = Cluster::start(1..=3, no_retention(), steady()).await;
    cluster.send_all(0..20).await;
    cluster.stop(3).await;
    let leader = cluster.leader().await.node_id();
    cluster.dirs.insert(3, other.dirs.remove(&3).unwrap());
    boot(&mut cluster, 3, &[1, 2, 3], false).await;
    let named = format!("node {leader}:");
    until(&cluster, 3, "takes part in a group that it does not belong to", |status| {
        status.foreign.iter().any(|peer| peer.starts_with(&named))
    })
    .await;
    cluster.send_all(20..40).await;
    let stranger = cluster.groups.remove(&3).unwrap();
    assert_eq!(stranger.status().voters, [3].into(), "it has kept its own log");
    holds_all(&cluster, 40).await;
    stranger.shutdown().await;
}

/// In asynchronous mode a power cut took the ends of two logs of three. The two elected each other and cut the whole one's
/// log, though it answered. Here the whole one is slow to stand, so the two have all the time for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_lost_records_do_not_cut_the_log_of_one_that_has_them() {
    let slow = Timing {
        election_min: Duration::from_secs(4),
        election_max: Duration::from_secs(5),
        heartbeat: Duration::from_millis(100),
    };
    let asynchronous = |config: &mut GroupConfig| config.flush = Flush::Async;
    let mut cluster = Cluster::start([], no_retention(), Timing::default()).await;
    for id in 1..=3 {
        cluster.nodes.insert(id, address());
        cluster.dirs.insert(id, TempDir::new().unwrap());
    }
    for id in 1..=3 {
        boot_with(&mut cluster, id, &[1, 2, 3], asynchronous).await;
    }
    cluster.send_all(0..20).await;
    let mut copies = Vec::new();
    for id in 1..=2 {
        cluster.stop(id).await;
        let before = TempDir::new().unwrap();
        copy(cluster.dirs[&id].path(), before.path());
        // As a power cut leaves it: acknowledged from memory in an earlier start of the machine.
        std::fs::write(before.path().join("unsynced"), "an earlier boot").unwrap();
        copies.push((id, before));
        boot_with(&mut cluster, id, &[1, 2, 3], asynchronous).await;
    }
    cluster.send_all(20..60).await;
    cluster.assert_identical().await;
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    for (id, before) in copies {
        cluster.dirs.insert(id, before);
        boot_with(&mut cluster, id, &[1, 2, 3], asynchronous).await;
    }
    nobody_leads(&cluster, &[1, 2]).await;
    boot_with(&mut cluster, 3, &[1, 2, 3], |config| {
        asynchronous(config);
        config.timing = slow;
    })
    .await;
    assert_eq!(cluster.leader().await.node_id(), 3);
    cluster.send_all(60..70).await;
    for id in 1..=2 {
        votes_again(&cluster, id).await;
    }
    holds_all(&cluster, 70).await;
}

/// What two nodes had lost was given up by an operator, while the third one, which has it all and a checkpoint of it, was
/// away. It could not start again: its log was to be cut below its checkpoint.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rewind_i1_a_node_whose_checkpoint_is_ahead_of_the_elected_log_starts_again() {
    let mut cluster = Cluster::start(1..=3, no_retention(), Timing::default()).await;
    cluster.send_all(0..20).await;
    let mut copies = Vec::new();
    for id in 1..=2 {
        cluster.assert_identical().await;
        cluster.stop(id).await;
        let before = TempDir::new().unwrap();
        copy(cluster.dirs[&id].path(), before.path());
        copies.push((id, before));
        cluster.boot(id, false).await;
    }
    cluster.send_all(20..300).await;
    cluster.assert_identical().await;
    // A clean stop leaves a checkpoint of all of it.
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    for (id, before) in copies {
        cluster.dirs.insert(id, before);
        cluster.boot(id, false).await;
    }
    // Other messages at the same places. Whichever side is elected, the other one has applied what is not in that log.
    cluster.send_all(1000..1030).await;
    cluster.boot(3, false).await;
    let (deadline, mut restarts) = (Instant::now() + PATIENCE, 0);
    loop {
        let statuses: Vec<Status> = cluster.groups.values().map(Group::status).collect();
        let stopped = statuses.iter().filter(|status| matches!(status.role, Role::Stopped(_)));
        for id in stopped.map(|status| status.node_id) {
            restarts += 1;
            cluster.groups.remove(&id).unwrap().shutdown().await;
            cluster.boot(id, false).await;
        }
        let ends: Vec<_> = statuses.iter().map(|status| (status.last, status.applied)).collect();
        if ends.iter().all(|end| *end == ends[0] && end.0.is_some_and(|last| last.index == end.1)) {
            break;
        }
        assert!(Instant::now() < deadline, "{statuses:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(restarts > 0, "rewind.I1: nothing was disputed");
    cluster.send_all(2000..2010).await;
    cluster.assert_identical().await;
    let bounds =
        |group: &Group| (0..4).map(|queue| group.queues().bounds("orders", queue)).collect::<Vec<_>>();
    let first = bounds(&cluster.groups[&1]);
    assert!(cluster.groups.values().all(|group| bounds(group) == first), "queues differ");
}
