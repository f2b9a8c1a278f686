//! Faults drawn at random: any node or all of them, killed, paused, stopped or robbed of its
//! derived files, and brought back after a random time.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use super::{Run, stop_leader};

/// What can happen in one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    KillOne,
    KillTwo,
    KillAll,
    KillAndWipe,
    Pause,
    Stop,
    KillTwiceInSuccession,
}

const KINDS: [Kind; 7] = [
    Kind::KillOne,
    Kind::KillTwo,
    Kind::KillAll,
    Kind::KillAndWipe,
    Kind::Pause,
    Kind::Stop,
    Kind::KillTwiceInSuccession,
];

pub(super) async fn run(run: &mut Run, rounds: u32) -> Result<()> {
    for _ in 0..rounds {
        run.wait_about(1.5).await;
        let kind = KINDS[run.random() as usize % KINDS.len()];
        let at_us = run.recorder.now_us();
        match kind {
            Kind::KillOne => kill(run, 1, false).await?,
            Kind::KillTwo => kill(run, 2, false).await?,
            Kind::KillAll => kill(run, 3, false).await?,
            Kind::KillAndWipe => kill(run, 1, true).await?,
            Kind::Pause => pause(run).await?,
            Kind::Stop => stop(run).await?,
            Kind::KillTwiceInSuccession => {
                kill(run, 1, false).await?;
                sleep(Duration::from_millis(run.random() % 400)).await;
                kill(run, 1, false).await?;
            }
        }
        run.acknowledged_since(at_us).await?;
        // Every second round goes on at once: a node may be hit while it still catches up.
        if run.random().is_multiple_of(2) {
            run.cluster.caught_up().await?;
        }
    }
    run.cluster.caught_up().await
}

/// Ids in random order.
fn shuffled(run: &mut Run) -> Vec<u64> {
    let mut ids = run.cluster.ids();
    for at in (1..ids.len()).rev() {
        ids.swap(at, run.random() as usize % (at + 1));
    }
    ids
}

async fn kill(run: &mut Run, count: usize, wipe: bool) -> Result<()> {
    let victims: Vec<u64> = shuffled(run).into_iter().take(count).collect();
    run.recorder.fault(format!("kill nodes {victims:?}, wipe {wipe}"), true);
    for id in &victims {
        run.cluster.node_mut(*id)?.kill()?;
    }
    if wipe {
        for id in &victims {
            run.cluster.node(*id)?.wipe_derived()?;
        }
    }
    sleep(Duration::from_millis(run.random() % 1500)).await;
    for id in &victims {
        run.recorder.fault(format!("start node {id}"), false);
        run.cluster.node_mut(*id)?.start()?;
        sleep(Duration::from_millis(run.random() % 300)).await;
    }
    Ok(())
}

async fn pause(run: &mut Run) -> Result<()> {
    let Some(id) = shuffled(run).first().copied() else { return Ok(()) };
    run.recorder.fault(format!("pause node {id}"), true);
    run.cluster.node(id)?.signal("STOP")?;
    sleep(Duration::from_millis(200 + run.random() % 3000)).await;
    run.recorder.fault(format!("continue node {id}"), false);
    run.cluster.node(id)?.signal("CONT")
}

async fn stop(run: &mut Run) -> Result<()> {
    let Some(id) = shuffled(run).first().copied() else { return Ok(()) };
    run.recorder.fault(format!("stop node {id}"), true);
    // How it ended is judged in `stop-leader`; here it may be hit while it starts.
    if let Some(how) = stop_leader::stop(run, id).await? {
        tracing::warn!(how, "unclean stop");
    }
    sleep(Duration::from_millis(run.random() % 1000)).await;
    run.cluster.node_mut(id)?.start()
}
