//! kill -9 of every node at once, under load: whatever was acknowledged is on a majority's disks.

use anyhow::Result;

use super::Run;

pub(super) async fn run(run: &mut Run, rounds: u32, wipe_derived: bool) -> Result<()> {
    for _ in 0..rounds {
        run.wait_about(2.0).await;
        run.cluster.leader().await?;
        let at_us = run.recorder.now_us();
        run.recorder.fault("kill all nodes", true);
        run.cluster.kill_all()?;
        if wipe_derived {
            for id in run.cluster.ids() {
                let wiped = run.cluster.node(id)?.wipe_derived()?;
                run.recorder.fault(format!("wipe {} derived files of node {id}", wiped.len()), false);
            }
        }
        run.recorder.fault("start all nodes", false);
        run.cluster.start_all()?;
        run.acknowledged_since(at_us).await?;
        run.cluster.caught_up().await?;
    }
    Ok(())
}
