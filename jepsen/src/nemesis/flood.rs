//! Large messages of the harness's own, to make logs grow by segments in seconds. No workload knows of them; the
//! comparison of the log files covers them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

use crate::checker::replicas::LogFiles;
use crate::client::Client;
use crate::cluster::Cluster;
use crate::history::Outcome;

/// Their topic.
const TOPIC: &str = "jepsen-flood";
/// Bytes of one.
const BODY_BYTES: usize = 512 << 10;
/// How long a node may take to answer one.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pause after one that was not acknowledged.
const PAUSE: Duration = Duration::from_millis(100);
/// As many in a row that are not acknowledged are a group that takes no more.
const REFUSED_MAX: u32 = 5;
/// How long nodes may take to drop old segments: they look once a minute.
pub(super) const RETENTION_TIMEOUT: Duration = Duration::from_secs(150);

/// A client that floods.
pub(super) struct Flood {
    client: Client,
    sent: u64,
}

impl Flood {
    pub(super) fn new() -> Self {
        Self { client: Client::new(Vec::new(), "jepsen-flood").with_patience(PATIENCE), sent: 0 }
    }

    /// Sends about so many bytes, or until the group takes no more; says how many bytes were acknowledged.
    pub(super) async fn send(&mut self, cluster: &mut Cluster, bytes: u64) -> Result<u64> {
        let (mut acknowledged, mut refused) = (0, 0);
        while acknowledged < bytes && refused < REFUSED_MAX {
            if self.one(cluster).await? {
                acknowledged += BODY_BYTES as u64;
                refused = 0;
            } else {
                refused += 1;
                sleep(PAUSE).await;
            }
        }
        Ok(acknowledged)
    }

    /// Waits until a message is acknowledged.
    pub(super) async fn until_served(&mut self, cluster: &mut Cluster, limit: Duration) -> Result<()> {
        let started = Instant::now();
        while !self.one(cluster).await? {
            ensure!(
                started.elapsed() < limit,
                "nothing was acknowledged for {limit:?}: {:?}",
                cluster.statuses().await
            );
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Sends one message to the leader; whether it was acknowledged.
    async fn one(&mut self, cluster: &mut Cluster) -> Result<bool> {
        let leader = cluster.leader().await?;
        let broker = cluster.node(leader)?.addresses.broker.clone();
        self.sent += 1;
        let key = format!("flood-{}", self.sent);
        let outcome = self.client.send(&broker, TOPIC, 0, &key, vec![b'f'; BODY_BYTES]).await;
        if !matches!(outcome, Outcome::Ok { .. }) {
            // The topic may not be there yet; a full disk refuses this as well.
            let _ = self.client.create_topic(&broker, TOPIC, 1).await;
        }
        Ok(matches!(outcome, Outcome::Ok { .. }))
    }
}

/// Where this node's log starts, and how many files it has, by their names.
pub(super) fn log_files(cluster: &Cluster, id: u64) -> Result<(u64, usize)> {
    let node = cluster.node(id)?;
    let files = LogFiles::open(format!("node {id}"), &node.commitlog()?)?;
    Ok((files.start(), files.count()))
}

/// Where this node's log starts.
pub(super) fn log_start(cluster: &Cluster, id: u64) -> Result<u64> {
    Ok(log_files(cluster, id)?.0)
}

/// Waits until each of these nodes has dropped segments: its log starts behind where it started `before`.
pub(super) async fn until_dropped(cluster: &mut Cluster, before: &[(u64, u64)]) -> Result<()> {
    let started = Instant::now();
    for (id, start) in before {
        // Between the listing of the files and their opening one may go.
        while log_start(cluster, *id).unwrap_or(*start) <= *start {
            cluster.check_alive().context("while old segments are dropped")?;
            ensure!(
                started.elapsed() < RETENTION_TIMEOUT,
                "node {id}'s log starts at {start} still after {RETENTION_TIMEOUT:?}: nothing was dropped"
            );
            sleep(PAUSE).await;
        }
    }
    Ok(())
}
