//! Callers of the Raft port that are no peers, and peers that send what they may not.
//!
//! Before there was a secret, a caller was told cluster, group, id and segment size by refusals, so that its fourth hello passed.
//! Then one append stopped every node at apply for good, one vote of term 2^64-1 was stored by all, and a forged
//! `acknowledged` had all nodes mark themselves as catching up.

mod forged;
pub(crate) mod raw;
mod skipped;

use std::time::Instant;

use folio_raft::group::Group;
use folio_raft::secret::ClusterSecret;
use folio_state::FEATURE_LEVEL;
use folio_state::FIRST_LEVEL;

use self::raw::{ANSWER, CHALLENGE, CREDENTIALS, FAILURE, HELLO, RawPeer, Says};
use crate::cluster::{Cluster, PATIENCE, SEGMENT_BYTES, address, no_retention, steady};

fn secret(byte: u8) -> ClusterSecret {
    ClusterSecret::parse(&[byte; 32]).unwrap()
}

/// What node `from` would say to node `to`.
fn says(group: &Group, from: u64, to: u64, secret: Option<ClusterSecret>) -> Says {
    Says {
        from,
        to,
        cluster: "c".into(),
        group: "g".into(),
        segment_bytes: SEGMENT_BYTES,
        group_id: group.status().group_id,
        secret,
        nonce: [from as u8; 32],
        levels: [FEATURE_LEVEL, FIRST_LEVEL],
    }
}

async fn three(secret: Option<&ClusterSecret>) -> Cluster {
    let cluster = Cluster::start_with(secret, 1..=3, no_retention(), steady()).await;
    cluster.send_all(0..20).await;
    cluster.assert_identical().await;
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_nodes_with_a_secret_serve_fail_over_and_take_a_new_member() {
    let secret = secret(b'x');
    let mut cluster = three(Some(&secret)).await;
    let old = cluster.leader().await.node_id();
    cluster.stop(old).await;
    cluster.send_all(20..40).await;
    cluster.boot(old, false).await;
    cluster.assert_identical().await;
    cluster.nodes.insert(4, address());
    cluster.dirs.insert(4, tempfile::TempDir::new().unwrap());
    cluster.secrets.insert(4, secret);
    cluster.boot(4, true).await;
    cluster.stop(old).await;
    cluster.replace(old, 4).await;
    cluster.send_all(40..60).await;
    cluster.assert_identical().await;
}

/// `peer.I7`
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_caller_without_the_secret_was_told_what_the_fourth_hello_needs() {
    let cluster = three(Some(&secret(b'x'))).await;
    let group = &cluster.groups[&1];
    let address = &cluster.nodes[&1].raft;
    let good = says(group, 2, 1, Some(secret(b'x')));
    RawPeer::admitted(address, &good).await;

    let without = Says { secret: None, ..good.clone() };
    let (kind, told) = RawPeer::connect(address).await.introduce(&without).await.unwrap();
    assert_eq!((kind, &told[..]), (FAILURE, &b"refused: the caller has no cluster secret"[..]));

    let wrong = Says { secret: Some(secret(b'y')), ..good.clone() };
    let mut peer = RawPeer::connect(address).await;
    peer.send(HELLO, &wrong.hello()).await;
    let (kind, challenge) = peer.receive().await.unwrap();
    assert_eq!(kind, CHALLENGE);
    // Both say the same hello.
    assert!(good.is_proved(&challenge) && !wrong.is_proved(&challenge), "the node proves itself first");
    peer.send(CREDENTIALS, &wrong.credentials(&challenge[4..36])).await;
    let (kind, told) = peer.receive().await.unwrap();
    assert_eq!((kind, &told[..]), (FAILURE, &b"refused; the log of the node that refuses says why"[..]));

    // features.I2: builds too old for the group here, and groups of a level that the build here does not support.
    let too_old = Says { levels: [FIRST_LEVEL - 1, FIRST_LEVEL - 1], ..good.clone() };
    let too_new = Says { levels: [FEATURE_LEVEL + 1; 2], ..good.clone() };
    for (wrong, remedy) in
        [(too_old, "install the build of the other nodes there"), (too_new, "of the other nodes here")]
    {
        let (kind, told) = RawPeer::connect(address).await.introduce(&wrong).await.unwrap();
        let told = String::from_utf8(told).unwrap();
        assert!(kind == FAILURE && told.contains(remedy), "{told}");
    }
    RawPeer::admitted(address, &Says { levels: [FEATURE_LEVEL + 1, FIRST_LEVEL], ..good.clone() }).await;

    // Who is known is told what is wrong.
    let lost = Says { segment_bytes: 1, ..good.clone() };
    let (kind, told) = RawPeer::connect(address).await.introduce(&lost).await.unwrap();
    let told = String::from_utf8(told).unwrap();
    assert!(kind == FAILURE && told.contains(&SEGMENT_BYTES.to_string()), "{told}");
}

/// `peer.I7`: without a secret nobody is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_a_secret_a_wrong_hello_is_refused_in_one_bare_sentence() {
    let cluster = three(None).await;
    let good = says(&cluster.groups[&1], 2, 1, None);
    let address = &cluster.nodes[&1].raft;
    RawPeer::admitted(address, &good).await;
    let other_id = good.group_id.as_ref().map(|id| id.chars().rev().collect());
    for wrong in [
        Says { cluster: "other".into(), ..good.clone() },
        Says { group: "other".into(), ..good.clone() },
        Says { segment_bytes: 1, ..good.clone() },
        Says { to: 3, ..good.clone() },
        Says { from: 1, ..good.clone() },
        Says { group_id: other_id, ..good.clone() },
    ] {
        let (kind, told) = RawPeer::connect(address).await.introduce(&wrong).await.unwrap();
        let told = String::from_utf8(told).unwrap();
        assert_eq!((kind, told.as_str()), (FAILURE, "refused; the log of the node that refuses says why"));
    }
}

/// `peer.I7`: both frames of a caller, recorded on a connection on which they passed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_recorded_handshake_does_not_pass_again() {
    let cluster = three(Some(&secret(b'x'))).await;
    let good = says(&cluster.groups[&1], 2, 1, Some(secret(b'x')));
    let address = &cluster.nodes[&1].raft;
    let mut peer = RawPeer::connect(address).await;
    peer.send(HELLO, &good.hello()).await;
    let (_, challenge) = peer.receive().await.unwrap();
    let recorded = good.credentials(&challenge[4..36]);
    peer.send(CREDENTIALS, &recorded).await;
    assert_eq!(peer.receive().await.unwrap().0, ANSWER);

    let mut replay = RawPeer::connect(address).await;
    replay.send(HELLO, &good.hello()).await;
    let (_, another) = replay.receive().await.unwrap();
    assert_ne!(another, challenge, "a nonce of its own");
    replay.send(CREDENTIALS, &recorded).await;
    assert_eq!(replay.receive().await.unwrap().0, FAILURE);
    assert!(replay.rest().await.is_empty());
}

/// A node without the secret takes no part, and takes it again once it has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_whose_secret_is_missing_takes_no_part_and_disturbs_nobody() {
    let mut cluster = three(Some(&secret(b'x'))).await;
    let leader = cluster.leader().await.node_id();
    let forgetful = cluster.groups.keys().copied().find(|id| *id != leader).unwrap();
    for wrong in [None, Some(secret(b'y'))] {
        cluster.stop(forgetful).await;
        cluster.secrets.remove(&forgetful);
        cluster.secrets.extend(wrong.map(|secret| (forgetful, secret)));
        cluster.boot(forgetful, false).await;
        let before = cluster.groups[&forgetful].status().applied;
        cluster.send_all(20..40).await;
        let status = cluster.groups[&forgetful].status();
        assert!(status.applied <= before.max(1), "{status:?}");
    }
    assert_eq!(cluster.leader().await.node_id(), leader);
    cluster.stop(forgetful).await;
    cluster.secrets.insert(forgetful, secret(b'x'));
    cluster.boot(forgetful, false).await;
    cluster.assert_identical().await;
}

/// `peer.I8`: callers that say nothing had their descriptors for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_flood_of_callers_that_say_nothing_does_not_keep_peers_out() {
    let cluster = three(None).await;
    let good = says(&cluster.groups[&1], 2, 1, None);
    let address = &cluster.nodes[&1].raft;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(RawPeer::connect(address).await);
    }
    RawPeer::admitted(address, &good).await;
    // Most are closed at once, the rest when their time is up.
    let begun = Instant::now();
    for peer in silent {
        assert!(peer.rest().await.is_empty());
    }
    assert!(begun.elapsed() < PATIENCE);
    cluster.send_all(20..30).await;
}
