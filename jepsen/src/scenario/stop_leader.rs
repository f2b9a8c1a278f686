//! SIGTERM to the leader, over and over: a planned stop hands the leadership over and ends well.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::time::sleep;

use super::Run;
use crate::checker::Finding;

/// How long a node may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

pub(super) async fn run(run: &mut Run, stops: u32) -> Result<()> {
    let mut unclean = Finding::fatal("unclean_stops");
    for _ in 0..stops {
        run.wait_about(2.0).await;
        let leader = run.cluster.leader().await?;
        let at_us = run.recorder.now_us();
        run.recorder.fault(format!("stop node {leader}, the leader"), true);
        if let Some(how) = stop(run, leader).await? {
            unclean.add(|| how);
        }
        run.acknowledged_since(at_us).await?;
        run.recorder.fault(format!("start node {leader}"), false);
        run.cluster.node_mut(leader)?.start()?;
        run.cluster.caught_up().await?;
    }
    run.extra.push(unclean);
    Ok(())
}

/// Tells a node to end and waits for it; says what was wrong with its end, if anything.
pub(super) async fn stop(run: &mut Run, id: u64) -> Result<Option<String>> {
    let node = run.cluster.node_mut(id)?;
    node.signal("TERM")?;
    let started = Instant::now();
    while node.ended().is_none() {
        if started.elapsed() > STOP_TIMEOUT {
            node.kill()?;
            return Ok(Some(format!("node {id} still ran {STOP_TIMEOUT:?} after SIGTERM")));
        }
        sleep(Duration::from_millis(10)).await;
    }
    let status = node.wait()?;
    ensure!(!node.is_started(), "a node that ended counts as running");
    Ok((!status.success()).then(|| format!("node {id} ended with {status} after SIGTERM")))
}
