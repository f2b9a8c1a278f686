//! An empty node takes the place of a dead one, under load.

use anyhow::Result;

use super::Run;
use crate::admin;

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
    admin::add_node(&run.cluster, fresh, &addresses).await?;
    run.recorder.fault(format!("node {fresh} added"), false);
    admin::remove_node(&run.cluster, dead).await?;
    run.recorder.fault(format!("node {dead} removed"), false);
    run.wait_about(2.0).await;
    run.cluster.caught_up().await
}
