//! Sectors that the disk of a running node has lost: what was there is asked of a peer and served, and no node stops.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::cluster::{Cluster, Echo, PATIENCE, SEGMENT_BYTES, address, no_retention, steady};
use folio_engine::disk::sim::SimDisk;
use folio_engine::log::ReadError;
use folio_raft::group::Group;
use folio_raft::proposal::Receipt;
use folio_raft::status::Role;
use tempfile::TempDir;

const PAGE: u64 = 4096;

/// Three nodes on disks that can lose sectors.
struct Nodes {
    cluster: Cluster,
    disks: BTreeMap<u64, SimDisk>,
}

impl Nodes {
    async fn start() -> Nodes {
        let ids = 1..=3;
        let cluster = Cluster {
            dirs: ids.clone().map(|id| (id, TempDir::new().unwrap())).collect(),
            nodes: ids.clone().map(|id| (id, address())).collect(),
            groups: BTreeMap::new(),
            secrets: BTreeMap::new(),
            retention: no_retention(),
            timing: steady(),
        };
        let mut nodes = Nodes { cluster, disks: ids.clone().map(|id| (id, SimDisk::new())).collect() };
        for id in ids {
            nodes.boot(id).await;
        }
        nodes
    }

    async fn boot(&mut self, id: u64) {
        let disk = Arc::new(self.disks[&id].clone());
        let group = Group::start(self.cluster.config(id, false), disk, Arc::new(Echo)).await.unwrap();
        self.cluster.groups.insert(id, group);
    }

    /// Stops a node and starts it again: what it has stored is in files only.
    async fn restart(&mut self, id: u64) {
        self.cluster.stop(id).await;
        self.boot(id).await;
    }

    fn path(&self, id: u64, name: &str) -> PathBuf {
        self.cluster.dirs[&id].path().join(name)
    }

    /// Loses the page of the log that holds a position.
    fn lose(&self, id: u64, position: u64) {
        let base = position - position % SEGMENT_BYTES;
        let from = (position - base) / PAGE * PAGE;
        let path = self.path(id, &format!("commitlog/{base:020}"));
        self.disks[&id].lose(&path, from..from + PAGE).unwrap();
    }

    fn assert_all_run(&self) {
        for group in self.cluster.groups.values() {
            let status = group.status();
            assert!(!matches!(status.role, Role::Stopped(_)), "damage.I3: {status:?}");
            assert_eq!(group.log().state().poisoned, None, "damage.I3");
        }
    }
}

/// Reads like a consumer, until the message is there.
async fn body_at(group: &Group, position: u64) -> Vec<u8> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = group.log().clone();
        let read = move || -> Result<_, ReadError> {
            let size = u32::from_be_bytes(*log.bytes(position, 4)?.first_chunk().unwrap());
            log.bytes(position, size as usize)
        };
        match tokio::task::spawn_blocking(read).await.unwrap() {
            Ok(bytes) => return bytes.to_vec(),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_message_on_a_bad_sector_is_served_after_a_repair_from_a_peer_and_the_node_goes_on() {
    let mut nodes = Nodes::start().await;
    let receipts = nodes.cluster.send_all(0..300).await;
    let positions: Vec<u64> = receipts.iter().map(|receipt| receipt.positions[0]).collect();
    let leader = nodes.cluster.leader().await.node_id();
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    nodes.restart(follower).await;
    nodes.cluster.send_all(300..310).await;
    let hit = positions.iter().copied().find(|position| *position > SEGMENT_BYTES + 3 * PAGE).unwrap();
    let expected = body_at(&nodes.cluster.groups[&leader], hit).await;
    nodes.lose(follower, hit);
    assert!(!nodes.disks[&follower].lost().is_empty());
    let group = nodes.cluster.groups[&follower].clone();
    assert_eq!(body_at(&group, hit).await, expected, "damage.I1");
    let deadline = Instant::now() + PATIENCE;
    while !nodes.disks[&follower].lost().is_empty() || group.status().damaged > 0 {
        assert!(Instant::now() < deadline, "never written again: {:?}", group.status());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    nodes.assert_all_run();
    nodes.cluster.send_all(310..320).await;
}

/// A cluster without one follower, which lacks the messages of the receipts; the others have them on their disks only.
async fn with_a_follower_away() -> (Nodes, u64, Vec<Receipt>) {
    let mut nodes = Nodes::start().await;
    let leader = nodes.cluster.leader().await.node_id();
    let away = (1..=3).find(|id| *id != leader).unwrap();
    nodes.cluster.send_all(0..10).await;
    nodes.cluster.stop(away).await;
    let receipts = nodes.cluster.send_all(10..400).await;
    for id in (1..=3).filter(|id| *id != away) {
        nodes.restart(id).await;
        nodes.cluster.leader().await;
    }
    (nodes, away, receipts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_with_a_bad_sector_brings_a_follower_up_that_needs_what_was_there() {
    let (mut nodes, away, receipts) = with_a_follower_away().await;
    let leader = nodes.cluster.leader().await.node_id();
    for receipt in receipts.iter().step_by(60).take(4) {
        nodes.lose(leader, receipt.positions[0]);
    }
    nodes.boot(away).await;
    nodes.cluster.send_all(400..410).await;
    let target = nodes.cluster.leader().await.status();
    let deadline = Instant::now() + PATIENCE;
    while nodes.cluster.groups[&away].status().applied_position < target.applied_position {
        nodes.assert_all_run();
        assert!(Instant::now() < deadline, "behind: {:?}", nodes.cluster.groups[&away].status());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    nodes.assert_all_run();
    let group = nodes.cluster.groups[&away].clone();
    let from = nodes.cluster.groups[&leader].clone();
    for receipt in receipts.iter().step_by(60) {
        let position = receipt.positions[0];
        assert_eq!(body_at(&group, position).await, body_at(&from, position).await);
    }
}

/// Replication waits for the record; the stop does not wait for replication.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_stops_that_waits_for_a_record_which_no_member_has() {
    let (mut nodes, away, receipts) = with_a_follower_away().await;
    let leader = nodes.cluster.leader().await.node_id();
    for id in (1..=3).filter(|id| *id != away) {
        nodes.lose(id, receipts[100].positions[0]);
    }
    nodes.boot(away).await;
    let deadline = Instant::now() + PATIENCE;
    while nodes.cluster.groups[&leader].status().damaged == 0 {
        assert!(Instant::now() < deadline, "the record is not asked for");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    nodes.assert_all_run();
    let begun = Instant::now();
    let stopped = tokio::time::timeout(PATIENCE, nodes.cluster.stop(leader)).await;
    assert!(stopped.is_ok(), "it had not stopped after {:?}", begun.elapsed());
}
