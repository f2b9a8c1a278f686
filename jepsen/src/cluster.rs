//! Several nodes on this machine, seen from outside.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::time::sleep;

use crate::binary;
use crate::checker::Finding;
use crate::checker::replicas::{self, LogFiles};
use crate::client::Client;
use crate::needs::Needs;
use crate::network::{Links, Network, Setter};
use crate::node::{Addresses, Node, Plan};
use crate::ports;
use crate::relay::{self, Link};
use crate::status::{self, Status};

/// How long the cluster may take to have a leader, or to have every node caught up.
pub const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How often its state is asked for meanwhile.
const POLL: Duration = Duration::from_millis(20);

/// The configuration's key by which a node may found a group of itself alone, where there is one.
const SINGLE_NODE: &str = "single_node";

/// What a cluster is started with.
#[derive(Clone)]
pub struct Options {
    /// First port.
    pub base_port: u16,
    /// Members, as many as there are places; all found the group, or the first one alone ([`Needs::alone`]).
    pub size: u64,
    /// Whether nodes drop old segments.
    pub expire: bool,
    /// What the nemeses that will act on it need.
    pub needs: Needs,
    /// Where its nodes run.
    pub network: Network,
}

/// A group of nodes.
pub struct Cluster {
    nodes: Vec<Node>,
    dir: PathBuf,
    binary: PathBuf,
    options: Options,
    links: Option<Links>,
    client: Client,
}

/// Whether a cluster of `size` nodes, and one more that may join, can listen from `base_port` on.
#[must_use]
pub fn ports_are_free(base_port: u16, size: u64) -> bool {
    (1..=size + 1)
        .map(|id| Addresses::of(base_port, id))
        .flat_map(|addresses| [addresses.namesrv, addresses.broker, addresses.raft])
        .chain(links(base_port, size).into_iter().map(|link| link.listen))
        .all(|address| ports::is_free(&address))
}

/// The links among so many nodes and one more that may join.
fn links(base_port: u16, size: u64) -> Vec<Link> {
    let pairs = (1..=size + 1).flat_map(|from| (1..=size + 1).map(move |to| (from, to)));
    let link = |(from, to)| Link {
        from,
        to,
        listen: Addresses::relay(base_port, from, to),
        target: Addresses::of(base_port, to).raft,
    };
    pairs.filter(|(from, to)| from != to).map(link).collect()
}

fn connect(network: &Network, base_port: u16, size: u64) -> Result<Links> {
    Ok(match network {
        Network::Relays => Links::Relays(relay::Links::start(&links(base_port, size))?),
        Network::Namespaces(namespaces) => Links::Namespaces(Arc::clone(namespaces)),
    })
}

impl Cluster {
    /// Writes the configuration of the founding nodes below `dir` and starts them.
    ///
    /// # Errors
    /// When files cannot be written or a process cannot be started.
    pub fn start(dir: &Path, binary: &Path, options: &Options) -> Result<Self> {
        let Options { base_port, size, expire, needs, ref network } = *options;
        let founders = if needs.alone { 1 } else { size };
        let members: Vec<(u64, u64)> = (1..=founders).map(|id| (id, id)).collect();
        let single_node = needs.alone && binary::has_key(binary, SINGLE_NODE)?;
        ensure!(
            !network.has_relays() || ports_are_free(base_port, size),
            "a port from {base_port} on is in use, perhaps by another cluster: it would be taken for ours; \
             give another --base-port"
        );
        let links = needs.links.then(|| connect(network, base_port, size)).transpose()?;
        let created = members.iter().map(|(id, place)| {
            let (place, places, members, join) = (*place, size, &members[..], false);
            let plan = Plan { base_port, place, places, members, join, single_node, expire, needs, network };
            Node::create(dir, binary, *id, &plan)
        });
        let mut nodes = created.collect::<Result<Vec<Node>>>()?;
        for node in &mut nodes {
            node.start()?;
        }
        Ok(Self {
            nodes,
            dir: dir.to_owned(),
            binary: binary.to_owned(),
            options: options.clone(),
            links,
            client: Client::new(Vec::new(), "jepsen-control"),
        })
    }

    /// Adds an empty node that waits to be made a member. It takes the place after the founders'
    /// among the ports: there is one such node at a time.
    ///
    /// # Errors
    /// When its files cannot be written or its process cannot be started.
    pub fn start_joining(&mut self, id: u64) -> Result<()> {
        self.start_joining_at(id, self.options.size + 1)
    }

    /// The same, in this place, which must be free.
    ///
    /// # Errors
    /// When its files cannot be written or its process cannot be started.
    pub fn start_joining_at(&mut self, id: u64, place: u64) -> Result<()> {
        let Options { base_port, size, expire, needs, ref network } = self.options;
        ensure!(self.nodes.iter().all(|node| node.place() != place), "place {place} is taken");
        let used = self.dir.join(format!("node-{id}"));
        ensure!(!used.exists(), "id {id} was used before: {} is there", used.display());
        let members: Vec<(u64, u64)> = self.nodes.iter().map(|node| (node.id, node.place())).collect();
        let (places, members, join, single_node) = (size, &members[..], true, false);
        let plan = Plan { base_port, place, places, members, join, single_node, expire, needs, network };
        let mut node = Node::create(&self.dir, &self.binary, id, &plan)?;
        node.start()?;
        self.nodes.push(node);
        Ok(())
    }

    /// A member's place that no node has.
    #[must_use]
    pub fn free_place(&self) -> Option<u64> {
        (1..=self.options.size).find(|place| self.nodes.iter().all(|node| node.place() != *place))
    }

    /// Forgets a node that is no member any more: its process is killed.
    ///
    /// # Errors
    /// When there is none of that id.
    pub fn retire(&mut self, id: u64) -> Result<()> {
        self.node(id)?;
        // Its process may have ended when it was taken out; dropping it kills one that did not.
        self.nodes.retain(|node| node.id != id);
        Ok(())
    }

    /// The links between nodes.
    ///
    /// # Errors
    /// When the cluster was started without them ([`Needs::links`]).
    pub fn links(&self) -> Result<Setter> {
        self.links.as_ref().map(Links::setter).context("the cluster was started without links to break")
    }

    /// The nodes whose processes were started and not killed.
    pub fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_started())
    }

    /// The ids of all nodes, running or not.
    #[must_use]
    pub fn ids(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    /// The NameServer address of every member's place.
    #[must_use]
    pub fn name_servers(&self) -> Vec<String> {
        self.addresses().map(|addresses| addresses.namesrv).collect()
    }

    /// The broker address of every member's place.
    #[must_use]
    pub fn brokers(&self) -> Vec<String> {
        self.addresses().map(|addresses| addresses.broker).collect()
    }

    fn addresses(&self) -> impl Iterator<Item = Addresses> {
        let Options { base_port, size, ref network, .. } = self.options;
        (1..=size).map(move |place| network.addresses(base_port, place))
    }

    /// The binary the nodes run.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// One node.
    ///
    /// # Errors
    /// When there is none of that id.
    pub fn node(&self, id: u64) -> Result<&Node> {
        self.nodes.iter().find(|node| node.id == id).with_context(|| format!("no node {id}"))
    }

    /// One node, to kill or start it.
    ///
    /// # Errors
    /// When there is none of that id.
    pub fn node_mut(&mut self, id: u64) -> Result<&mut Node> {
        self.nodes.iter_mut().find(|node| node.id == id).with_context(|| format!("no node {id}"))
    }

    /// What one node says of the group.
    ///
    /// # Errors
    /// When it does not answer, or not understandably.
    pub async fn status(&self, id: u64) -> Result<Status> {
        status::ask(&self.client, &self.node(id)?.addresses.broker).await
    }

    /// What every running node says; nodes that do not answer are left out.
    pub async fn statuses(&self) -> Vec<Status> {
        let mut all = Vec::new();
        for node in self.running() {
            match status::ask(&self.client, &node.addresses.broker).await {
                Ok(status) => all.push(status),
                Err(error) => tracing::debug!(node = node.id, error = format!("{error:#}"), "no status"),
            }
        }
        all
    }

    /// Waits until a running node leads in the highest term any running node knows.
    ///
    /// # Errors
    /// When none does in time.
    pub async fn leader(&mut self) -> Result<u64> {
        let started = Instant::now();
        loop {
            // First, so that nobody else's node on our ports is ever taken for ours.
            self.check_alive()?;
            let statuses = self.statuses().await;
            let term = statuses.iter().map(|status| status.term).max();
            let leader = statuses.iter().find(|status| status.is_leader() && Some(status.term) == term);
            if let Some(leader) = leader {
                return Ok(leader.node_id);
            }
            ensure!(started.elapsed() < READY_TIMEOUT, "no leader for {READY_TIMEOUT:?}: {statuses:?}");
            sleep(POLL).await;
        }
    }

    /// Waits until every running node has applied what the leader had committed when asked first.
    ///
    /// # Errors
    /// When one does not in time, or its process has ended.
    pub async fn caught_up(&mut self) -> Result<()> {
        let started = Instant::now();
        let goal = loop {
            let leader = self.leader().await?;
            if let Ok(status) = self.status(leader).await {
                break status.committed;
            }
            ensure!(started.elapsed() < READY_TIMEOUT, "the leader does not answer");
        };
        loop {
            let statuses = self.statuses().await;
            if statuses.len() == self.running().count()
                && statuses.iter().all(|status| status.applied >= goal)
            {
                return Ok(());
            }
            self.check_alive()?;
            ensure!(
                started.elapsed() < READY_TIMEOUT,
                "not every node has applied index {goal} after {READY_TIMEOUT:?}: {statuses:?}"
            );
            sleep(POLL).await;
        }
    }

    /// Waits until all running nodes are at rest at the same index. Nobody may write meanwhile.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn settled(&mut self) -> Result<Vec<Status>> {
        let started = Instant::now();
        loop {
            self.caught_up().await?;
            let statuses = self.statuses().await;
            let rests = |status: &Status| {
                Some((status.applied, status.committed)) == statuses.first().map(Status::at)
            };
            if statuses.len() == self.running().count() && statuses.iter().all(rests) {
                return Ok(statuses);
            }
            ensure!(started.elapsed() < READY_TIMEOUT, "the nodes do not come to rest: {statuses:?}");
            sleep(POLL).await;
        }
    }

    /// Kills all running nodes, one right after the other.
    ///
    /// # Errors
    /// When one had ended by itself.
    pub fn kill_all(&mut self) -> Result<()> {
        let mut failed = None;
        for node in self.nodes.iter_mut().filter(|node| node.is_started()) {
            if let Err(error) = node.kill() {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Starts every node that does not run.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start_all(&mut self) -> Result<()> {
        self.nodes.iter_mut().filter(|node| !node.is_started()).try_for_each(Node::start)
    }

    /// Starts every node whose process does not run, also those that ended and were excused.
    ///
    /// # Errors
    /// When one ended without an excuse or cannot be started.
    pub fn revive_all(&mut self) -> Result<()> {
        self.nodes.iter_mut().try_for_each(Node::revive)
    }

    /// Fails if a process has ended though nobody killed or excused it.
    ///
    /// # Errors
    /// Names the first such node and its log.
    pub fn check_alive(&mut self) -> Result<()> {
        for node in self.nodes.iter_mut().filter(|node| !node.is_excused()) {
            if let Some(status) = node.ended() {
                bail!("node {} ended by itself: {status}; its log: {}", node.id, node.log_path().display());
            }
        }
        Ok(())
    }

    /// A breach for every process that ended by itself and every panic in a log.
    pub fn health(&mut self) -> Finding {
        let mut finding = Finding::fatal("crashes");
        for node in &mut self.nodes {
            if let Some(status) = node.ended().filter(|_| !node.is_excused()) {
                finding.add(|| format!("node {} ended by itself: {status}", node.id));
            }
            for line in node.panics() {
                finding.add(|| format!("node {}: {line}", node.id));
            }
        }
        finding
    }

    /// Compares the log files of all running nodes up to where every one of them has applied.
    /// `read_end` is where readers found the last message to end: the comparison must reach it.
    ///
    /// # Errors
    /// When files cannot be read, or the statuses tell less than what readers were given.
    pub async fn compare_logs(&mut self, read_end: u64) -> Result<(Finding, u64)> {
        let statuses = self.settled().await?;
        let end = statuses.iter().map(|status| status.applied_position).min().unwrap_or(0);
        ensure!(
            end >= read_end,
            "readers were given messages up to {read_end}, nodes say they applied {end}"
        );
        let logs = self.running().map(|node| LogFiles::open(format!("node {}", node.id), &node.commitlog()?));
        let logs = logs.collect::<Result<Vec<LogFiles>>>()?;
        let finding = tokio::task::spawn_blocking(move || replicas::check(&logs, end)).await??;
        Ok((finding, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_taken_port_makes_the_block_taken() {
        let base = (23_000..31_000).step_by(60).find(|base| ports_are_free(*base, 3)).unwrap();
        let _taken = std::net::TcpListener::bind(Addresses::of(base, 2).raft).unwrap();
        assert!(!ports_are_free(base, 3));
    }
}
