//! `folio cluster ...` commands, given to a running cluster as an operator gives them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::cluster::Cluster;
use crate::node::Addresses;

/// How long a membership command may take, catching up included.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause before it is given again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Takes a waiting node in.
///
/// # Errors
/// When it is no voter in time.
pub async fn add_node(cluster: &Cluster, id: u64, at: &Addresses) -> Result<()> {
    let number = id.to_string();
    let Addresses { raft, broker, namesrv } = at;
    let words = ["add-node", "--id", &number, "--raft", raft, "--broker", broker, "--namesrv", namesrv];
    until(cluster, &words, |voters| voters.contains(&id)).await
}

/// Takes a node out.
///
/// # Errors
/// When it is still a voter after a time.
pub async fn remove_node(cluster: &Cluster, id: u64) -> Result<()> {
    until(cluster, &["remove-node", "--id", &id.to_string()], |voters| !voters.contains(&id)).await
}

/// Gives the command again until the leader says that it is as wanted: an operator whose command
/// met a change of leader does the same.
async fn until(cluster: &Cluster, words: &[&str], wanted: impl Fn(&[u64]) -> bool) -> Result<()> {
    let started = Instant::now();
    loop {
        let tried = run(cluster, words).await;
        let statuses = cluster.statuses().await;
        let term = statuses.iter().map(|status| status.term).max();
        let leader = statuses.iter().find(|status| status.is_leader() && Some(status.term) == term);
        if leader.is_some_and(|leader| wanted(&leader.voters)) {
            return Ok(());
        }
        match tried {
            Err(error) if started.elapsed() > ADMIN_TIMEOUT => return Err(error),
            Err(error) => tracing::debug!(error = format!("{error:#}"), "again"),
            Ok(()) if started.elapsed() > ADMIN_TIMEOUT => {
                bail!("folio cluster {words:?} succeeded and did nothing: {statuses:?}")
            }
            Ok(()) => {}
        }
        sleep(AGAIN_AFTER).await;
    }
}

/// `folio cluster ...` against a running node's NameServer.
async fn run(cluster: &Cluster, arguments: &[&str]) -> Result<()> {
    let node = cluster.running().next().context("a node runs")?;
    let mut command = Command::new(cluster.binary());
    command.arg("cluster").args(arguments).args(["--namesrv-addr", &node.addresses.namesrv]);
    let output = timeout(ADMIN_TIMEOUT, command.kill_on_drop(true).output()).await;
    let output =
        output.with_context(|| format!("folio cluster {arguments:?} did not end in {ADMIN_TIMEOUT:?}"))??;
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("folio cluster {arguments:?} ended with {}: {out}{err}", output.status);
    }
    Ok(())
}
