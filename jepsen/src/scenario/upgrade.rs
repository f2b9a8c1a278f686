//! A rolling upgrade to a build of a later feature level, node after node, under load; and taken back on the way.
//!
//! While one node runs the older build, the group may use nothing that this build does not know: the level stays, and every
//! node may go back. Once all run the later one, the level rises by itself, and a node of the older build is turned away.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

use super::{Run, stop_leader};
use crate::checker::Finding;
use crate::client::Client;
use crate::status;

/// How long a leader of the later build may take to raise the level, and an older one to find out that it must not start.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a level stays that must not rise: three looks of the leader.
const STAYS: Duration = Duration::from_secs(3);
/// Changes of leader until a node of the later build leads.
const HAND_OVERS_MAX: u32 = 8;
/// What a node of the later build logs once it has used what only that level has.
const USED: &str = "a command of the next feature level is applied";
/// What a node of the older build says when it ends.
const TURNED_AWAY: &str = "and this build supports levels up to";

pub(super) async fn run(run: &mut Run, later: &Path) -> Result<()> {
    let older = run.cluster.binary().to_owned();
    // A new group begins at the first level.
    let (_, level) = levels(run).await?;
    until_level(run, level).await?;
    let mut finding = Finding::fatal("upgrade");
    let ids = run.cluster.ids();
    let (first, last) = (*ids.first().context("a node")?, *ids.last().context("a node")?);
    for id in &ids {
        run.wait_about(1.0).await;
        replace(run, &mut finding, *id, later).await?;
        if *id == first {
            // Taken back: what the later build has written is read by the older one.
            sleep(STAYS).await;
            replace(run, &mut finding, *id, &older).await?;
            replace(run, &mut finding, *id, later).await?;
        }
        if *id != last {
            lead_by_later(run, &mut finding, &ids, *id).await?;
            sleep(STAYS).await;
            let (uses, _) = levels(run).await?;
            if uses != level {
                finding.add(|| format!("feature level {uses} with nodes of the older build, after {level}"));
            }
        }
    }
    let (_, later_level) = levels(run).await?;
    ensure!(
        later_level > level,
        "the later build supports feature level {later_level}, the group uses {level}"
    );
    until_level(run, later_level).await?;
    run.wait_about(3.0).await;
    turned_away(run, &mut finding, (first, &older), later).await?;
    if !used(run)? {
        finding.add(|| "no leader has used what the later build adds".to_owned());
    }
    run.extra.push(finding);
    Ok(())
}

/// Has a node of the later build lead, which is the one that could raise the level too early: `ids` up to `upgraded` run it.
async fn lead_by_later(run: &mut Run, finding: &mut Finding, ids: &[u64], upgraded: u64) -> Result<()> {
    for _ in 0..HAND_OVERS_MAX {
        let leader = run.cluster.leader().await?;
        if leader <= upgraded {
            return Ok(());
        }
        // It hands over to one of the others, and comes back with the build that it had.
        let build = run.cluster.binary().to_owned();
        replace(run, finding, leader, &build).await?;
    }
    finding.add(|| {
        format!("none of the nodes {ids:?} up to {upgraded} leads after {HAND_OVERS_MAX} changes of leader")
    });
    Ok(())
}

/// Stops a node and starts it with another build.
async fn replace(run: &mut Run, finding: &mut Finding, id: u64, build: &Path) -> Result<()> {
    run.recorder.fault(format!("node {id} gets the build {}", build.display()), true);
    let at_us = run.recorder.now_us();
    if let Some(how) = stop_leader::stop(run, id).await? {
        finding.add(|| how);
    }
    run.acknowledged_since(at_us).await?;
    let node = run.cluster.node_mut(id)?;
    node.install(build);
    node.start()?;
    run.cluster.caught_up().await
}

/// The highest level that a node says the group uses, and the lowest one that a build supports.
async fn levels(run: &Run) -> Result<(u16, u16)> {
    let client = Client::new(Vec::new(), "jepsen-upgrade");
    let mut levels = (0, u16::MAX);
    for node in run.cluster.running() {
        let said = status::ask(&client, &node.addresses.broker).await?;
        levels = (levels.0.max(said.feature_level), levels.1.min(said.feature_level_max));
    }
    ensure!(levels.0 > 0, "a node does not say its feature level");
    Ok(levels)
}

async fn until_level(run: &Run, level: u16) -> Result<()> {
    let client = Client::new(Vec::new(), "jepsen-upgrade");
    let started = Instant::now();
    for node in run.cluster.running() {
        while status::ask(&client, &node.addresses.broker).await?.feature_level != level {
            ensure!(started.elapsed() < NOTICE_TIMEOUT, "node {} never uses feature level {level}", node.id);
            sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// A node of the older build ends by itself, with a sentence that names both levels, and the others go on.
async fn turned_away(
    run: &mut Run,
    finding: &mut Finding,
    (id, older): (u64, &Path),
    later: &Path,
) -> Result<()> {
    run.recorder.fault(format!("node {id} gets the older build again"), true);
    let at_us = run.recorder.now_us();
    if let Some(how) = stop_leader::stop(run, id).await? {
        finding.add(|| how);
    }
    let node = run.cluster.node_mut(id)?;
    node.install(older);
    node.excuse();
    node.start()?;
    let started = Instant::now();
    while node.ended().is_none() {
        if started.elapsed() > NOTICE_TIMEOUT {
            finding.add(|| format!("node {id} of the older build still runs after {NOTICE_TIMEOUT:?}"));
            node.kill()?;
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    let log = node.log_path();
    let said = std::fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?;
    if !said.contains(TURNED_AWAY) {
        finding
            .add(|| format!("node {id} of the older build does not say why it ends, in {}", log.display()));
    }
    run.acknowledged_since(at_us).await?;
    let node = run.cluster.node_mut(id)?;
    node.install(later);
    node.revive()?;
    run.cluster.caught_up().await
}

fn used(run: &Run) -> Result<bool> {
    for node in run.cluster.running() {
        let log = node.log_path();
        let said = std::fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?;
        if said.contains(USED) {
            return Ok(true);
        }
    }
    Ok(false)
}
