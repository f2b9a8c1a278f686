//! A group born as {1} and grown to {1, 2, 3}: node 1 loses its disk while 2 and 3 are down, and starts with the
//! configuration it was born with, which knows no other node.
//!
//! It may not found a second group of the same name: whatever it acknowledged alone, the group never has.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep;

use super::Run;
use crate::checker::Finding;
use crate::client::Client;
use crate::growth::Growth;
use crate::history::{Op, Outcome};
use crate::payload::{self, OpKey};

/// How long node 1 is asked to store messages while it is alone.
const ALONE: Duration = Duration::from_secs(10);
/// Pause between two of them.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn run(run: &mut Run) -> Result<()> {
    let mut growth = Growth::default();
    run.wait_about(2.0).await;
    growth.fill(&mut run.cluster, None).await?;
    run.recorder.fault(growth.words(), false);
    run.wait_about(2.0).await;
    run.recorder.fault("nodes 2 and 3 are killed, node 1 loses its disk", true);
    let at_us = run.recorder.now_us();
    for id in [2, 3] {
        run.cluster.node_mut(id)?.kill()?;
    }
    // What it had acknowledged with one of the others, they have.
    let first = run.cluster.node_mut(1)?;
    first.kill()?;
    first.wipe_everything()?;
    first.start()?;
    let alone = send_alone(run).await?;
    run.extra.push(alone);
    run.recorder.fault("start nodes 2 and 3", false);
    for id in [2, 3] {
        run.cluster.node_mut(id)?.start()?;
    }
    run.acknowledged_since(at_us).await?;
    run.cluster.caught_up().await
}

/// Sends to node 1; nothing of it may be acknowledged, nor a topic be made.
async fn send_alone(run: &mut Run) -> Result<Finding> {
    let mut finding = Finding::fatal("split-brain");
    let broker = run.cluster.node(1)?.addresses.broker.clone();
    let client = Client::new(Vec::new(), "jepsen-alone").with_patience(Duration::from_secs(1));
    let (started, mut seq) = (Instant::now(), 0);
    while started.elapsed() < ALONE {
        if client.create_topic(&broker, &run.shape.topic(0), run.shape.queues).await.is_ok() {
            finding.add(|| "node 1, alone and empty, made a topic".to_owned());
        }
        // A producer number of its own: these sends are checked like all others.
        let key = OpKey { topic: 0, queue: 0, producer: run.shape.producers, seq };
        seq += 1;
        let invoked_us = run.recorder.now_us();
        let (unique_key, body) =
            (payload::unique_key(run.shape.run, key), payload::encode(run.shape.run, key));
        let outcome = client.send(&broker, &run.shape.topic(0), 0, &unique_key, body).await;
        if matches!(outcome, Outcome::Ok { .. }) {
            finding.add(|| format!("node 1, alone and empty, acknowledged {key}: {outcome:?}"));
        }
        run.recorder.op(Op { key, invoked_us, completed_us: run.recorder.now_us(), resent: 0, outcome });
        sleep(PAUSE).await;
    }
    Ok(finding)
}
