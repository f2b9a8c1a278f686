//! Three nodes with the good client on them, and what is looked at before, beside and after an attack.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::time::sleep;

use super::good::{self, GoodClient};
use super::verdict::{Bounds, NodeSeen};
use super::watch::{Peaks, Process, Reading, Used, Watch, used};
use crate::addresses::Addresses;
use crate::client::Client;
use crate::cluster::{Cluster, Options, READY_TIMEOUT};
use crate::history::Outcome;
use crate::nemesis::Needs;
use crate::network::Network;

/// How long nodes may take to put away what an attack left.
const PUT_AWAY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long messages may take that were acknowledged and not consumed yet.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a new client may take for one thing.
const FRESH_TIMEOUT: Duration = Duration::from_secs(5);
/// How often is looked again meanwhile.
const POLL: Duration = Duration::from_millis(100);

/// How a field is set up.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// The binary `folio`.
    pub(crate) binary: PathBuf,
    /// Folder of the run.
    pub(crate) dir: PathBuf,
    /// First port.
    pub(crate) base_port: u16,
    /// Messages a second of the good client.
    pub(crate) rate: u32,
    /// Files that a node may have open.
    pub(crate) open_files: u32,
    /// Number of the run.
    pub(crate) run: u64,
}

/// Where attacks take place.
pub(crate) struct Field {
    /// The nodes.
    pub(crate) cluster: Cluster,
    /// The good client.
    pub(crate) good: GoodClient,
    /// What the machine tells of the nodes.
    pub(crate) watch: Watch,
    processes: Vec<Process>,
}

impl Field {
    /// Starts nodes and client; `number` tells this field from those before it.
    ///
    /// # Errors
    /// When they are not ready in time.
    pub(crate) async fn start(setup: &Setup, number: u64) -> Result<Self> {
        let dir = setup.dir.join(format!("cluster-{number}"));
        std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let binary = limited(&setup.binary, &dir, setup.open_files)?;
        let needs = Needs { little_memory: true, ..Needs::default() };
        let network = Network::default();
        let options = Options { base_port: setup.base_port, size: 3, expire: false, needs, network };
        let mut cluster = Cluster::start(&dir, &binary, &options)?;
        create_topic(&mut cluster).await.context("prepare the cluster")?;
        let (name_servers, brokers) = (cluster.name_servers(), cluster.brokers());
        let good = GoodClient::start(name_servers, brokers, setup.run ^ number, setup.rate).await?;
        let process = |node: &crate::node::Node| {
            node.pid().map(|pid| Process { node: node.id, pid, log: node.log_path() })
        };
        let processes: Vec<Process> = cluster.running().filter_map(process).collect();
        let watch = Watch::start(processes.clone());
        Ok(Self { cluster, good, watch, processes })
    }

    /// The nodes' addresses, and the leader's place among them.
    #[must_use]
    pub(crate) fn addresses(&self, leader: u64) -> (Vec<Addresses>, usize) {
        let nodes: Vec<_> = self.cluster.running().collect();
        let leader = nodes.iter().position(|node| node.id == leader).unwrap_or(0);
        (nodes.iter().map(|node| node.addresses.clone()).collect(), leader)
    }

    /// Leader and term, as the node says that leads in the highest term known.
    pub(crate) async fn leader(&self) -> Option<(u64, u64)> {
        let statuses = self.cluster.statuses().await;
        let term = statuses.iter().map(|status| status.term).max()?;
        let leader = statuses.iter().find(|status| status.is_leader() && status.term == term)?;
        Some((leader.node_id, term))
    }

    /// The same, waited for.
    pub(crate) async fn leader_in_time(&mut self) -> Option<(u64, u64)> {
        let started = Instant::now();
        while started.elapsed() < READY_TIMEOUT && self.cluster.check_alive().is_ok() {
            if let Some(leader) = self.leader().await {
                return Some(leader);
            }
            sleep(POLL).await;
        }
        self.leader().await
    }

    /// All processes now.
    #[must_use]
    pub(crate) fn read(&self) -> Vec<Reading> {
        self.processes.iter().map(Process::read).collect()
    }

    /// What the threads of all nodes have used of the processors.
    #[must_use]
    pub(crate) fn used(&self) -> Vec<Used> {
        self.processes.iter().map(|process| used(process.pid)).collect()
    }

    /// Waits until the nodes have put away what an attack left, or time is up: what they are like then.
    pub(crate) async fn nodes(&self, before: &[Reading], peaks: &Peaks, bounds: &Bounds) -> Vec<NodeSeen> {
        let started = Instant::now();
        loop {
            let after = self.read();
            let is_back = |(before, after): (&Reading, &Reading)| {
                after.memory_bytes <= before.memory_bytes + bounds.memory_kept_bytes
                    && after.sockets <= before.sockets + bounds.sockets_kept
            };
            if before.iter().zip(&after).all(is_back) || started.elapsed() > PUT_AWAY_TIMEOUT {
                let seen = (0..).zip(&self.processes).zip(before.iter().zip(after));
                let of = |values: &[u64], at: usize| values.get(at).copied().unwrap_or(0);
                let seen = seen.map(|((at, process), (before, after))| NodeSeen {
                    node: process.node,
                    before: *before,
                    peak_bytes: of(&peaks.memory_bytes, at),
                    minutes_bytes: peaks.minutes.iter().map(|minute| of(minute, at)).collect(),
                    after,
                });
                return seen.collect();
            }
            sleep(POLL).await;
        }
    }

    /// Processes that ended by themselves, and panics in their logs.
    pub(crate) fn crashes(&mut self) -> Vec<String> {
        let found = self.cluster.health();
        let mut crashes = found.examples;
        if found.count > crashes.len() as u64 {
            crashes.push(format!("{} crashes and panics altogether", found.count));
        }
        crashes
    }

    /// Acknowledged messages that do not come back in time.
    pub(crate) async fn missing(&self) -> u64 {
        self.good.missing(DELIVERY_TIMEOUT).await
    }

    /// What a new client cannot do at each node: route, send, pull, and find the good client in its group.
    pub(crate) async fn fresh(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let members = self.cluster.ids();
        for status in self.cluster.statuses().await {
            if status.voters != members {
                failures.push(format!("node {} says the members are {:?}", status.node_id, status.voters));
            }
        }
        for node in self.cluster.running() {
            let tried = tokio::time::timeout(FRESH_TIMEOUT, try_all(&node.addresses)).await;
            match tried {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failures.push(format!("a new client at node {}: {error:#}", node.id)),
                Err(_) => failures.push(format!("a new client at node {} waits too long", node.id)),
            }
        }
        failures
    }

    /// Ends the good client; messages that did not come back, acknowledged ones, and how the replicas differ.
    ///
    /// # Errors
    /// When the replicas cannot be compared.
    pub(crate) async fn end(mut self) -> Result<(u64, u64, Vec<String>)> {
        let (missing, acknowledged) = self.good.stop(DELIVERY_TIMEOUT).await;
        let (finding, _) = self.cluster.compare_logs(0).await.context("compare the replicas' logs")?;
        Ok((missing, acknowledged, finding.examples))
    }
}

async fn try_all(addresses: &Addresses) -> Result<()> {
    let client = Client::new(vec![addresses.namesrv.clone()], good::GROUP).with_member("fresh@jepsen");
    let broker = &addresses.broker;
    client.route(good::TOPIC).await.context("route")?;
    let key = format!("{:032X}", std::process::id());
    match client.send(broker, good::TOPIC, 0, &key, b"fresh".to_vec()).await {
        Outcome::Ok { .. } => {}
        other => anyhow::bail!("send: {other:?}"),
    }
    client.pull(broker, good::TOPIC, 0, 0).await.context("pull")?;
    let members = client.members(broker).await.context("members")?;
    anyhow::ensure!(
        members.iter().any(|member| member == good::MEMBER),
        "the good client is no member of its group any more: {members:?}"
    );
    Ok(())
}

async fn create_topic(cluster: &mut Cluster) -> Result<()> {
    let client = Client::new(cluster.name_servers(), "hostile-setup");
    let started = Instant::now();
    loop {
        let leader = cluster.leader().await?;
        let broker = cluster.node(leader)?.addresses.broker.clone();
        match client.create_topic(&broker, good::TOPIC, good::QUEUES).await {
            Ok(()) => return cluster.caught_up().await,
            Err(error) if started.elapsed() > READY_TIMEOUT => return Err(error),
            Err(_) => sleep(POLL).await,
        }
    }
}

/// A program that starts the binary with so many open files at most: a node raises what it may.
fn limited(binary: &Path, dir: &Path, open_files: u32) -> Result<PathBuf> {
    let path = dir.join("folio");
    let quoted = binary.display().to_string().replace('\'', r"'\''");
    std::fs::write(&path, format!("#!/bin/sh\nulimit -n {open_files}\nexec '{quoted}' \"$@\"\n"))
        .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limited_program_has_so_many_open_files_and_its_arguments() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("it's");
        std::fs::write(&inner, "#!/bin/sh\nulimit -n; ulimit -Hn; echo \"$1|$2\"\n").unwrap();
        std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(0o755)).unwrap();
        let program = limited(&inner, dir.path(), 321).unwrap();
        let output = std::process::Command::new(program).args(["a b", "c"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "321\n321\na b|c\n");
    }
}
