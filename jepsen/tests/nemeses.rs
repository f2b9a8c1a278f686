//! Nemeses on real processes: each does what its name says, and the cluster gets over it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use folio_jepsen::binary;
use folio_jepsen::client::Client;
use folio_jepsen::cluster::{Cluster, Options, ports_are_free};
use folio_jepsen::history::Outcome;
use folio_jepsen::nemesis::{self, Dice, Fault, Needs, Nemesis};
use folio_jepsen::network::Network;
use folio_jepsen::payload::{self, OpKey};
use tokio::sync::{Mutex, MutexGuard};

const TOPIC: &str = "nemeses";
const PATIENCE: Duration = Duration::from_secs(30);

struct Fixture {
    cluster: Cluster,
    nemesis: Box<dyn Nemesis>,
    dice: Dice,
    _dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

static KEYS: AtomicU64 = AtomicU64::new(0);
/// One cluster at a time: three nodes want the machine for themselves.
static TURN: Mutex<()> = Mutex::const_new(());

fn named(name: &str) -> Box<dyn Nemesis> {
    nemesis::all().into_iter().find(|each| each.name() == name).unwrap()
}

/// A cluster with a topic, for the nemesis of this name; `None`, and the reason printed, when this
/// machine has no means for it.
async fn fixture(name: &str, base_port: u16) -> Option<Fixture> {
    let nemesis = named(name);
    if let Err(why) = nemesis::available(&*nemesis, &Network::Relays) {
        eprintln!("skipped: {name}: {why}");
        return None;
    }
    let turn = TURN.lock().await;
    let binary = binary::find(None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let base_port = (base_port..base_port + 240).step_by(60).find(|base| ports_are_free(*base, 3)).unwrap();
    let needs: Needs = nemesis.needs();
    let options = Options { base_port, size: 3, expire: false, needs, network: Network::Relays };
    let mut cluster = Cluster::start(dir.path(), &binary, &options).unwrap();
    let leader = cluster.leader().await.unwrap();
    let broker = cluster.node(leader).unwrap().addresses.broker.clone();
    let client = Client::new(Vec::new(), "setup");
    let started = Instant::now();
    while client.create_topic(&broker, TOPIC, 1).await.is_err() {
        assert!(started.elapsed() < PATIENCE, "no topic");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.caught_up().await.unwrap();
    Some(Fixture { cluster, nemesis, dice: Dice::new(7), _dir: dir, _turn: turn })
}

impl Fixture {
    async fn inject(&mut self, nodes: &[u64]) -> Fault {
        self.nemesis.inject(&mut self.cluster, nodes, &mut self.dice).await.unwrap()
    }

    async fn heal(&mut self) {
        self.nemesis.heal(&mut self.cluster).await.unwrap();
        self.cluster.caught_up().await.unwrap();
        self.cluster.check_alive().unwrap();
    }

    fn client(&self, id: u64) -> (Client, String) {
        let broker = self.cluster.node(id).unwrap().addresses.broker.clone();
        (Client::new(Vec::new(), "writer").with_patience(Duration::from_secs(1)), broker)
    }

    /// Sends so many messages to a node; says how many it acknowledged.
    async fn send(&self, id: u64, count: u64) -> u64 {
        let (client, broker) = self.client(id);
        let mut acknowledged = 0;
        for seq in 0..count {
            // A key of its own for each: a repeated one is answered from memory.
            let key = format!("key-{}", KEYS.fetch_add(1, Ordering::Relaxed));
            let body = payload::encode(1, OpKey { topic: 0, queue: 0, producer: 0, seq });
            let outcome = client.send(&broker, TOPIC, 0, &key, body).await;
            acknowledged += u64::from(matches!(outcome, Outcome::Ok { .. }));
        }
        acknowledged
    }

    /// Sends messages until so many were acknowledged, to whoever leads: on a busy machine that changes.
    async fn sent(&mut self, count: u64) {
        let (started, mut acknowledged) = (Instant::now(), 0);
        while acknowledged < count {
            assert!(started.elapsed() < PATIENCE, "{acknowledged} of {count} acknowledged");
            let leader = self.cluster.leader().await.unwrap();
            acknowledged += self.send(leader, count - acknowledged).await;
        }
    }

    /// Waits until another node than this one leads.
    async fn led_by_another(&mut self, than: u64) -> u64 {
        let started = Instant::now();
        loop {
            let statuses = self.cluster.statuses().await;
            let term = statuses.iter().map(|status| status.term).max();
            let other = statuses
                .iter()
                .find(|status| status.is_leader() && status.node_id != than && Some(status.term) == term);
            if let Some(other) = other {
                return other.node_id;
            }
            assert!(started.elapsed() < PATIENCE, "nobody took over from node {than}: {statuses:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How many messages the queue has on a node.
    async fn stored(&self, id: u64) -> u64 {
        let (client, broker) = self.client(id);
        // A stalled machine answers late.
        for _ in 0..9 {
            if let Ok(pulled) = client.pull(&broker, TOPIC, 0, 0).await {
                return pulled.max;
            }
        }
        client.pull(&broker, TOPIC, 0, 0).await.unwrap().max
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_nobody_hears_is_replaced_and_acknowledges_nothing() {
    let Some(mut fixture) = fixture("partition-isolate", 14_000).await else { return };
    fixture.sent(5).await;
    let leader = fixture.cluster.leader().await.unwrap();
    fixture.inject(&[leader]).await;
    let other = fixture.led_by_another(leader).await;
    assert_eq!(fixture.send(leader, 1).await, 0, "a leader without a majority acknowledged");
    assert_ne!(other, leader);
    // On a busy machine the two that are left may change places meanwhile.
    fixture.sent(5).await;
    fixture.heal().await;
    for id in fixture.cluster.ids() {
        assert!(fixture.stored(id).await >= 10, "node {id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_of_all_nodes_takes_bytes_and_no_acknowledged_message() {
    let Some(mut fixture) = fixture("power-cut", 14_300).await else { return };
    fixture.sent(50).await;
    let fault = fixture.inject(&fixture.cluster.ids()).await;
    assert!(fault.what.contains("sectors_lost"), "{fault}");
    assert_eq!(fixture.cluster.running().count(), 0);
    fixture.heal().await;
    for id in fixture.cluster.ids() {
        assert!(fixture.stored(id).await >= 50, "node {id} after {fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_serves_again_by_itself() {
    let Some(mut fixture) = fixture("disk-full", 14_600).await else { return };
    let ids = fixture.cluster.ids();
    let leader = fixture.cluster.leader().await.unwrap();
    let fault = fixture.inject(&ids).await;
    // Two segments of 16 MiB are reserved before; then there is no third one.
    let (client, broker) = fixture.client(leader);
    let mut refused = None;
    for number in 0..60 {
        let outcome = client.send(&broker, TOPIC, 0, &format!("large-{number}"), vec![b'x'; 1 << 20]).await;
        if !matches!(outcome, Outcome::Ok { .. }) {
            refused = Some(outcome);
            break;
        }
    }
    assert!(refused.is_some(), "60 MiB went to a full disk: {fault}");
    fixture.heal().await;
    eprintln!("{fault}, {refused:?}");
    fixture.sent(5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_jumps_goes_on() {
    let Some(mut fixture) = fixture("clock", 14_900).await else { return };
    let leader = fixture.cluster.leader().await.unwrap();
    let fault = fixture.inject(&[leader]).await;
    eprintln!("{fault}");
    fixture.sent(5).await;
    fixture.heal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_comes_and_goes_leaves_the_group_as_it_was() {
    let Some(mut fixture) = fixture("membership", 15_200).await else { return };
    fixture.sent(5).await;
    for _ in 0..2 {
        let leader = fixture.cluster.leader().await.unwrap();
        let fault = fixture.inject(&[leader]).await;
        assert_eq!(fixture.cluster.ids().len(), 4, "{fault}");
        fixture.heal().await;
        assert_eq!(fixture.cluster.ids(), [1, 2, 3]);
    }
    let status = fixture.cluster.status(fixture.cluster.ids()[0]).await.unwrap();
    assert_eq!(status.voters, [1, 2, 3]);
    assert!(fixture.stored(1).await >= 5);
}
