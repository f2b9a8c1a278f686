//! An empty node takes the place of a dead one, under load.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use tokio::time::timeout;

use super::Run;

/// How long a membership command may take, catching up included.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) async fn run(run: &mut Run) -> Result<()> {
    run.wait_about(3.0).await;
    let dead = run.cluster.leader().await?;
    let at_us = run.recorder.now_us();
    run.recorder.fault(format!("kill node {dead}, the leader, for good"), true);
    run.cluster.node_mut(dead)?.kill()?;
    run.acknowledged_since(at_us).await?;
    let fresh = run.cluster.ids().into_iter().max().unwrap_or(0) + 1;
    run.recorder.fault(format!("start node {fresh}, empty"), false);
    run.cluster.start_joining(fresh)?;
    let addresses = run.cluster.node(fresh)?.addresses.clone();
    let id = fresh.to_string();
    admin(
        run,
        &[
            "add-node",
            "--id",
            &id,
            "--raft",
            &addresses.raft,
            "--broker",
            &addresses.broker,
            "--namesrv",
            &addresses.namesrv,
        ],
    )
    .await?;
    run.recorder.fault(format!("node {fresh} added"), false);
    admin(run, &["remove-node", "--id", &dead.to_string()]).await?;
    run.recorder.fault(format!("node {dead} removed"), false);
    run.wait_about(2.0).await;
    run.cluster.caught_up().await
}

/// `folio cluster ...` against a running node's NameServer.
async fn admin(run: &Run, arguments: &[&str]) -> Result<()> {
    let node = run.cluster.running().next().context("a node runs")?;
    let mut command = Command::new(run.cluster.binary());
    command.arg("cluster").args(arguments).args(["--namesrv-addr", &node.addresses.namesrv]);
    let output = timeout(ADMIN_TIMEOUT, command.kill_on_drop(true).output()).await;
    let output =
        output.with_context(|| format!("folio cluster {arguments:?} did not end in {ADMIN_TIMEOUT:?}"))??;
    ensure!(
        output.status.success(),
        "folio cluster {arguments:?} ended with {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
