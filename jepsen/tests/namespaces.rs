//! A cluster in network namespaces, a partition of the network itself, and what is left of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use folio_jepsen::binary;
use folio_jepsen::client::Client;
use folio_jepsen::cluster::{Cluster, Options};
use folio_jepsen::history::Outcome;
use folio_jepsen::nemesis::{self, Dice, Needs};
use folio_jepsen::netns::Namespaces;
use folio_jepsen::network::Network;

const TOPIC: &str = "namespaces";
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_leader_cut_off_in_the_network_is_replaced_and_all_nodes_listen_only_in_their_own() {
    let made = match Namespaces::create(4) {
        Ok(made) => made,
        Err(why) => return eprintln!("skipped: network namespaces: {why:#}"),
    };
    let binary = binary::find(None).unwrap();
    // Threads are where the one that starts them is: the clients' must be at the hub.
    let thread = std::thread::spawn(move || {
        made.enter().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(cut_off_the_leader(&binary, made));
    });
    thread.join().unwrap();
}

async fn cut_off_the_leader(binary: &Path, made: Arc<Namespaces>) {
    let dir = tempfile::tempdir().unwrap();
    let needs = Needs { links: true, ..Needs::default() };
    let network = Network::Namespaces(made);
    let options = Options { base_port: 16_000, size: 3, expire: false, needs, network: network.clone() };
    let mut cluster = Cluster::start(dir.path(), binary, &options).unwrap();
    let leader = cluster.leader().await.unwrap();
    for node in cluster.running() {
        listens_only_at_home(node.pid().unwrap(), &network.host(node.id));
    }
    acknowledged(&cluster, leader, "before").await;
    let mut partition = nemesis::all().into_iter().find(|each| each.name() == "partition-isolate").unwrap();
    let fault = partition.inject(&mut cluster, &[leader], &mut Dice::new(1)).await.unwrap();
    let started = Instant::now();
    let other = loop {
        let statuses = cluster.statuses().await;
        if let Some(other) = statuses.iter().find(|status| status.is_leader() && status.node_id != leader) {
            break other.node_id;
        }
        assert!(started.elapsed() < PATIENCE, "nobody took over after {fault}: {statuses:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let cut_off = send(&cluster, leader, "cut off").await;
    assert!(!matches!(cut_off, Outcome::Ok { .. }), "acknowledged without a majority: {cut_off:?}");
    acknowledged(&cluster, other, "meanwhile").await;
    partition.heal(&mut cluster).await.unwrap();
    cluster.caught_up().await.unwrap();
    cluster.check_alive().unwrap();
    let leader = cluster.leader().await.unwrap();
    acknowledged(&cluster, leader, "after").await;
}

async fn send(cluster: &Cluster, id: u64, key: &str) -> Outcome {
    let broker = cluster.node(id).unwrap().addresses.broker.clone();
    let client = Client::new(Vec::new(), "writer").with_patience(Duration::from_secs(1));
    // Whoever leads makes the topic; until then a send to it is refused.
    let _ = client.create_topic(&broker, TOPIC, 1).await;
    client.send(&broker, TOPIC, 0, key, b"body".to_vec()).await
}

/// Sends until it is acknowledged: a new leader may refuse a while.
async fn acknowledged(cluster: &Cluster, id: u64, key: &str) {
    let started = Instant::now();
    loop {
        let outcome = send(cluster, id, key).await;
        if matches!(outcome, Outcome::Ok { .. }) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{key} at node {id}: {outcome:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every listening socket of the network the process runs in is bound to its own address.
fn listens_only_at_home(pid: u32, home: &str) {
    let address = home.parse::<std::net::Ipv4Addr>().unwrap();
    let hex = format!("{:08X}:", u32::from_le_bytes(address.octets()));
    for (table, expected) in [("tcp", 3), ("tcp6", 0)] {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        // Columns: number, local address, remote address, state; 0A is "listening".
        let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<&str>>());
        let listening: Vec<String> =
            words.filter(|words| words.get(3) == Some(&"0A")).map(|words| words[1].to_owned()).collect();
        assert_eq!(listening.len(), expected, "{table} of {home}: {listening:?}");
        assert!(listening.iter().all(|at| at.starts_with(&hex)), "{table} of {home}: {listening:?}");
    }
}
