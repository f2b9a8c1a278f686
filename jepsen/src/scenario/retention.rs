//! Old segments expire under load, and then the nodes die: they must come back from what is left.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::time::sleep;

use super::Run;
use crate::checker::replicas::LogFiles;

/// How long the first segment may take to expire: it must fill, and nodes look once a minute.
const EXPIRY_TIMEOUT: Duration = Duration::from_secs(240);

/// First all nodes die as they are, then once more without checkpoint and consume queues.
pub(super) async fn run(run: &mut Run) -> Result<()> {
    expired_everywhere(run).await?;
    for wipe in [false, true] {
        run.wait_about(2.0).await;
        run.cluster.leader().await?;
        let at_us = run.recorder.now_us();
        run.recorder.fault(format!("kill all nodes, wipe {wipe}"), true);
        run.cluster.kill_all()?;
        for id in run.cluster.ids().into_iter().filter(|_| wipe) {
            run.cluster.node(id)?.wipe(&["consumequeue", "consumequeue.tails", "checkpoint"])?;
        }
        run.cluster.start_all()?;
        run.acknowledged_since(at_us).await?;
        run.cluster.caught_up().await?;
    }
    Ok(())
}

async fn expired_everywhere(run: &mut Run) -> Result<()> {
    let started = Instant::now();
    for id in run.cluster.ids() {
        while LogFiles::open(format!("node {id}"), &run.cluster.node(id)?.commitlog()?)?.start() == 0 {
            run.cluster.check_alive()?;
            ensure!(started.elapsed() < EXPIRY_TIMEOUT, "node {id} still has its first segment");
            sleep(Duration::from_millis(500)).await;
        }
    }
    run.recorder.fault("the first segment has expired on every node", false);
    Ok(())
}
