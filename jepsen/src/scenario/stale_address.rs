//! A client that knows one broker address and no NameServer goes on without an error, though the
//! node there has stopped leading.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::sleep;

use super::Run;
use crate::checker::Finding;
use crate::client::Client;
use crate::history::{Op, Outcome};
use crate::payload::{self, OpKey};

/// Sends the client with the old address makes.
const SENDS: u64 = 500;
/// Restarts until the old leader is a follower; it may win an election again.
const RESTARTS_MAX: u32 = 10;
/// Stories until one begins and ends with the same leader, another one than the old: on a busy machine it may change meanwhile.
const STORIES_MAX: u64 = 5;

pub(super) async fn run(run: &mut Run) -> Result<()> {
    run.wait_about(2.0).await;
    for story in 0..STORIES_MAX {
        let old = follower_that_led(run).await?;
        run.cluster.caught_up().await?;
        let leads = run.cluster.leader().await?;
        let refused = send_to(run, old, story * SENDS..(story + 1) * SENDS).await?;
        // While leaders change, a send may have no certain outcome.
        if leads != old && run.cluster.leader().await? == leads {
            run.extra.push(refused);
            return Ok(());
        }
    }
    bail!("the leader changed in each of {STORIES_MAX} runs: they proved nothing")
}

/// Sends to a node that led once, whoever leads now; which sends had errors.
async fn send_to(run: &mut Run, old: u64, numbers: Range<u64>) -> Result<Finding> {
    let broker = run.cluster.node(old)?.addresses.broker.clone();
    let client = Arc::new(Client::new(Vec::new(), "jepsen-stale"));
    let mut refused = Finding::fatal("stale_address_errors");
    for seq in numbers {
        // A producer number of its own: these sends are checked like all others.
        let key = OpKey { topic: 0, queue: 0, producer: run.shape.producers, seq };
        let invoked_us = run.recorder.now_us();
        let (unique_key, body) =
            (payload::unique_key(run.shape.run, key), payload::encode(run.shape.run, key));
        let outcome = client.send(&broker, &run.shape.topic(0), 0, &unique_key, body).await;
        if !matches!(outcome, Outcome::Ok { .. }) {
            refused.add(|| format!("{key} to node {old}: {outcome:?}"));
        }
        run.recorder.op(Op { key, invoked_us, completed_us: run.recorder.now_us(), resent: 0, outcome });
    }
    Ok(refused)
}

/// Restarts leaders until one of them is a follower, and says which.
async fn follower_that_led(run: &mut Run) -> Result<u64> {
    for _ in 0..RESTARTS_MAX {
        let old = run.cluster.leader().await?;
        let at_us = run.recorder.now_us();
        run.recorder.fault(format!("kill node {old}, the leader"), true);
        run.cluster.node_mut(old)?.kill()?;
        run.acknowledged_since(at_us).await?;
        run.cluster.node_mut(old)?.start()?;
        run.cluster.caught_up().await?;
        sleep(Duration::from_millis(500)).await;
        if run.cluster.leader().await? != old {
            return Ok(old);
        }
    }
    bail!("{RESTARTS_MAX} restarted leaders were elected again at once")
}
