//! What a caller sends that has passed the handshake: in the name of another, of the last term, or a record that nobody can
//! apply. The clusters here have no secret: so the caller has the id that it likes.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use folio_engine::disk::sim::SimDisk;
use folio_engine::record::{Draft, EntryId, Record, RecordKind};
use folio_engine::{CommitLog, LogConfig, StampBase};
use folio_raft::group::Group;

use super::raw::{APPEND, CALL, PRE_VOTE, RawPeer, TRANSFER, VOTE, Value};
use super::{says, three};
use crate::cluster::{Cluster, SEGMENT_BYTES};

/// A leader, the follower that is called, and the one in whose name the caller speaks.
struct Cast {
    leader: u64,
    called: u64,
    other: u64,
}

fn cast(cluster: &Cluster, leader: &Group) -> Cast {
    let leader = leader.node_id();
    let mut followers = cluster.groups.keys().copied().filter(|id| *id != leader);
    Cast { leader, called: followers.next().unwrap(), other: followers.next().unwrap() }
}

async fn peer(cluster: &Cluster, from: u64, to: u64) -> RawPeer {
    RawPeer::admitted(&cluster.nodes[&to].raft, &says(&cluster.groups[&to], from, to, None)).await
}

/// The group is as it was: one term, one leader, and it serves.
async fn assert_unharmed(cluster: &Cluster, term: u64, leader: u64) {
    cluster.send_all(20..40).await;
    cluster.assert_identical().await;
    for (id, group) in &cluster.groups {
        let status = group.status();
        assert_eq!((status.term, status.leader), (term, Some(leader)), "node {id}: {status:?}");
        assert!(!cluster.dirs[id].path().join("catching-up").exists(), "node {id}");
    }
}

fn vote(vote: (u64, u64, bool), last: (u64, u64)) -> Vec<u8> {
    // By leave of the leader, so that nobody waits for its lease.
    Value::new().vote(vote).id(Some(last)).byte(1).0
}

fn append(
    vote: (u64, u64, bool),
    prev: EntryId,
    acknowledged: Option<(u64, u64)>,
    records: &[u8],
) -> Vec<u8> {
    let prev = Some((prev.term, prev.index));
    let head = Value::new().vote(vote).id(prev).id(None).id(acknowledged).0;
    [&(head.len() as u32).to_le_bytes()[..], &head, records].concat()
}

/// `peer.I5`: it was stored by every node, and no leader could be elected again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_vote_of_the_last_term_ended_all_elections() {
    let cluster = three(None).await;
    let group = cluster.leader().await;
    let (status, Cast { leader, called, other }) = (group.status(), cast(&cluster, &group));
    let last = (u64::MAX - 1, u64::MAX - 1);
    let mut caller = peer(&cluster, other, called).await;
    for term in [u64::MAX, u64::MAX - 1, status.term + (1 << 32) + 1] {
        for kind in [VOTE, PRE_VOTE] {
            let told = caller.refused(kind, &vote((term, other, false), (status.term, 1 << 40))).await;
            assert!(told.contains("peer.I5"), "{told}");
        }
        let told = caller.refused(APPEND, &append((term, other, true), EntryId::default(), None, b"")).await;
        assert!(told.contains("peer.I5"), "{told}");
    }
    let told = caller.refused(VOTE, &vote((status.term + 1, other, false), last)).await;
    assert!(told.contains("peer.I5"), "{told}");
    assert_unharmed(&cluster, status.term, leader).await;
}

/// `peer.I4`: forged votes kept a group without a leader, and a forged `acknowledged` kept all nodes from voting.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_spoke_in_the_name_of_another() {
    let cluster = three(None).await;
    let group = cluster.leader().await;
    let (status, Cast { leader, called, other }) = (group.status(), cast(&cluster, &group));
    let (term, own) = (status.term, status.last.unwrap());
    let far = Some((term, own.index + 1_000));
    let mut caller = peer(&cluster, other, called).await;
    for (kind, body) in [
        (VOTE, vote((term + 1, leader, false), (term, 1 << 40))),
        (VOTE, vote((term + 1, called, false), (term, 1 << 40))),
        (VOTE, vote((term + 1, other, true), (term, 1 << 40))),
        // What the leader would have said, from a follower.
        (APPEND, append((term, leader, true), own, far, b"")),
        // Two leaders of one term.
        (APPEND, append((term, other, true), own, far, b"")),
        // The called node itself.
        (APPEND, append((term + 1, called, true), own, far, b"")),
        (APPEND, append((term + 1, other, false), own, far, b"")),
        (TRANSFER, Value::new().vote((term, leader, true)).number(called).id(None).bytes(&[0; 4]).0),
        (TRANSFER, Value::new().vote((term, other, true)).number(called).id(None).bytes(&[0; 4]).0),
    ] {
        let told = caller.refused(kind, &body).await;
        assert!(told.contains("peer.I4"), "{kind}: {told}");
    }
    assert_unharmed(&cluster, term, leader).await;
}

/// `peer.I6`: forged client tables sent clients to any address.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_is_no_member_called_the_server() {
    let cluster = three(None).await;
    let group = cluster.leader().await;
    let (status, Cast { leader, called, other }) = (group.status(), cast(&cluster, &group));
    let told = peer(&cluster, 9, called).await.refused(CALL, b"a table").await;
    assert!(told.contains("peer.I6"), "{told}");
    let (_, answer) = peer(&cluster, other, called).await.ask(CALL, b"a table").await;
    assert_eq!(answer, [&other.to_le_bytes()[..], b"a table"].concat());
    assert_unharmed(&cluster, status.term, leader).await;
}

/// A record that follows the last one of a node's log.
fn record(group: &Group, term: u64, kind: RecordKind, payload: &[u8]) -> Bytes {
    let last = group.status().last.unwrap();
    let before: Record = group.log().read(last.index, last.index + 1, 1).unwrap().remove(0);
    let config = LogConfig { segment_bytes: SEGMENT_BYTES, ..LogConfig::default() };
    let log =
        CommitLog::open(Arc::new(SimDisk::new()), Path::new("/"), config, StampBase::default()).unwrap();
    let base = StampBase {
        id: Some(last),
        position: before.end(),
        prev_crc: before.header.crc,
        counters: Default::default(),
    };
    log.reset(base, Box::new(|reset| reset.unwrap()));
    let id = EntryId { term, index: last.index + 1 };
    let record = log.append(id, Draft::with_payload(kind, payload)).unwrap();
    log.close();
    record.frame().clone()
}

/// `appends.I1`: with one such append from a caller that says it leads, all nodes stopped at apply, and at every start.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_garbage_command_won_the_election_and_stopped_every_node() {
    let cluster = three(None).await;
    let group = cluster.leader().await;
    let (status, Cast { leader, called, other }) = (group.status(), cast(&cluster, &group));
    let own = cluster.groups[&called].status().last.unwrap();
    let mut caller = peer(&cluster, other, called).await;
    for (kind, payload) in [(RecordKind::Command, &b"garbage"[..]), (RecordKind::Membership, b"garbage")] {
        let garbage = record(&cluster.groups[&called], status.term + 1, kind, payload);
        let forged = append((status.term + 1, other, true), own, None, &garbage);
        caller.refused(APPEND, &forged).await;
    }
    // Entries that do not follow each other ended the node as well (appends.I2).
    let blank = record(&cluster.groups[&called], status.term + 1, RecordKind::Blank, b"");
    let gap = EntryId { index: own.index - 1, ..own };
    let told = caller.refused(APPEND, &append((status.term + 1, other, true), gap, None, &blank)).await;
    assert!(told.contains("appends.I2"), "{told}");
    assert_unharmed(&cluster, status.term, leader).await;
}
