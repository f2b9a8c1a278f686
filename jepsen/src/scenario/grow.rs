//! A cluster born as one node grows to three; every member is replaced, one after the other; it shrinks to one node
//! and grows again. After each step, a member comes back with an empty disk.

use anyhow::Result;

use super::Run;
use crate::growth::Growth;
use crate::nemesis::Dice;

pub(super) async fn run(run: &mut Run, rounds: u32) -> Result<()> {
    let mut growth = Growth::default();
    let mut dice = Dice::new(run.random());
    for _ in 0..rounds {
        run.wait_about(1.0).await;
        growth.fill(&mut run.cluster, Some(&mut dice)).await?;
        run.recorder.fault(growth.words(), false);
        for id in run.cluster.ids() {
            let at_us = run.recorder.now_us();
            growth.replace(&mut run.cluster, id, Some(&mut dice)).await?;
            run.recorder.fault(growth.words(), false);
            run.acknowledged_since(at_us).await?;
        }
        let at_us = run.recorder.now_us();
        growth.shrink(&mut run.cluster, &mut dice).await?;
        run.recorder.fault(growth.words(), false);
        run.acknowledged_since(at_us).await?;
    }
    growth.fill(&mut run.cluster, None).await
}
