//! An idle cluster on a machine that stalls: all processes at once, or one after the other. Nobody writes; the report says
//! how often the leader changed.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep;

use super::Run;
use crate::nemesis::Dice;
use crate::nemesis::stalls::{Stalling, go_on, stall};
use crate::report::LeaderChanges;
use crate::terms::Terms;

/// How long the cluster is left alone before and after.
const REST: Duration = Duration::from_secs(1);

pub(super) async fn run(run: &mut Run, seconds: u64, stalling: Stalling) -> Result<()> {
    let mut dice = Dice::new(run.random());
    run.cluster.leader().await?;
    sleep(REST).await;
    let (mut terms, mut leader, mut changes) = (Terms::default(), None, 0);
    terms.look(&run.cluster).await;
    let (started, mut stalled) = (Instant::now(), Vec::new());
    while started.elapsed() < Duration::from_secs(seconds) {
        let nodes = run.cluster.ids();
        let done = stall(&run.cluster, &nodes, &mut stalled, stalling, &mut dice).await;
        go_on(&run.cluster, &mut stalled)?;
        done?;
        if let Some(now) = terms.look(&run.cluster).await {
            changes += u64::from(leader.is_some_and(|before| before != now));
            leader = Some(now);
        }
        run.cluster.check_alive()?;
    }
    run.cluster.leader().await?;
    let seconds = started.elapsed().as_secs_f64();
    run.leader_changes = Some(LeaderChanges { changes, terms: terms.passed(), seconds });
    Ok(())
}
