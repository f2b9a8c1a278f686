//! `folio cluster ...` commands, given to a running cluster as an operator gives them.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::Command;
use tokio::time::timeout;

use crate::cluster::Cluster;
use crate::node::Addresses;

/// How long a membership command may take, catching up included.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(60);

/// Takes a waiting node in.
///
/// # Errors
/// When the command does not say that it did.
pub async fn add_node(cluster: &Cluster, id: u64, at: &Addresses) -> Result<()> {
    let id = id.to_string();
    let Addresses { raft, broker, namesrv } = at;
    run(cluster, &["add-node", "--id", &id, "--raft", raft, "--broker", broker, "--namesrv", namesrv]).await
}

/// Takes a node out.
///
/// # Errors
/// When the command does not say that it did.
pub async fn remove_node(cluster: &Cluster, id: u64) -> Result<()> {
    run(cluster, &["remove-node", "--id", &id.to_string()]).await
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
