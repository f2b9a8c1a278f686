//! kill -9 of the leader, over and over, under load.

use anyhow::Result;

use super::Run;

/// Each killed node comes back and catches up before the next kill: a second one at the same
/// time would take the majority, which `kill-all` does on purpose.
pub(super) async fn run(run: &mut Run, kills: u32, seconds_between: f64) -> Result<()> {
    for _ in 0..kills {
        run.wait_about(seconds_between).await;
        let leader = run.cluster.leader().await?;
        let at_us = run.recorder.now_us();
        run.recorder.fault(format!("kill node {leader}, the leader"), true);
        run.cluster.node_mut(leader)?.kill()?;
        run.acknowledged_since(at_us).await?;
        run.wait_about(seconds_between / 4.0).await;
        run.recorder.fault(format!("start node {leader}"), false);
        run.cluster.node_mut(leader)?.start()?;
        run.cluster.caught_up().await?;
    }
    Ok(())
}
