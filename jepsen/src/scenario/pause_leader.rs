//! SIGSTOP of the leader: it keeps its connections, says nothing, and wakes up believing it leads.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use super::Run;

/// The paused leader must not acknowledge anything when it wakes that the others do not have.
pub(super) async fn run(run: &mut Run, pauses: u32, seconds: f64) -> Result<()> {
    for _ in 0..pauses {
        run.wait_about(1.0).await;
        let leader = run.cluster.leader().await?;
        let at_us = run.recorder.now_us();
        run.recorder.fault(format!("pause node {leader}, the leader"), true);
        run.cluster.node(leader)?.signal("STOP")?;
        sleep(Duration::from_secs_f64(seconds)).await;
        run.recorder.fault(format!("continue node {leader}"), false);
        run.cluster.node(leader)?.signal("CONT")?;
        run.acknowledged_since(at_us).await?;
        run.cluster.caught_up().await?;
    }
    Ok(())
}
