//! A follower loses its whole disk and comes back empty, then the leader dies.
//!
//! The empty node had acknowledged messages it no longer has. Until it holds all that is committed
//! its vote could elect a node that misses some of them.

use anyhow::{Context, Result};

use super::Run;

/// The leader dies right after the empty node is back, or once it has caught up, in turns.
pub(super) async fn run(run: &mut Run, rounds: u32) -> Result<()> {
    for round in 0..rounds {
        run.wait_about(2.0).await;
        let leader = run.cluster.leader().await?;
        let followers: Vec<u64> = run.cluster.ids().into_iter().filter(|id| *id != leader).collect();
        let victim = *followers.get(run.random() as usize % followers.len().max(1)).context("a follower")?;
        run.recorder.fault(format!("node {victim}, a follower, loses its disk"), false);
        run.cluster.node_mut(victim)?.kill()?;
        run.cluster.node(victim)?.wipe_everything()?;
        run.cluster.node_mut(victim)?.start()?;
        if round.is_multiple_of(2) {
            run.cluster.caught_up().await?;
        } else {
            run.wait_about(0.2).await;
        }
        let at_us = run.recorder.now_us();
        run.recorder.fault(format!("kill node {leader}, the leader"), true);
        run.cluster.node_mut(leader)?.kill()?;
        run.wait_about(2.0).await;
        // An empty node that has not caught up may rightly wait for this one.
        run.recorder.fault(format!("start node {leader}"), false);
        run.cluster.node_mut(leader)?.start()?;
        run.acknowledged_since(at_us).await?;
        run.cluster.caught_up().await?;
    }
    Ok(())
}
