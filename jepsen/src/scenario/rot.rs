//! One flipped bit in a dead follower's log, well below what it had acknowledged.
//!
//! The node may refuse to start, naming the file, or be repaired from its peers; it may not serve
//! the wrong byte, and it may not cut acknowledged records off and vote with a shorter log.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

use super::Run;
use crate::checker::Finding;

/// How long the damaged node may take to refuse or to be repaired.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(30);
/// Damage lies between these two tenths of the log that was on its disk.
const TENTHS: std::ops::Range<u64> = 1..6;

/// With enough `seconds_before` the damage lies below a checkpoint, where a node that looks only at
/// its tail does not see it.
pub(super) async fn run(run: &mut Run, seconds_before: f64) -> Result<()> {
    sleep(Duration::from_secs_f64(seconds_before)).await;
    let leader = run.cluster.leader().await?;
    let victim = run.cluster.ids().into_iter().find(|id| *id != leader).context("a follower")?;
    let durable = run.cluster.status(victim).await?.durable_position;
    run.recorder.fault(format!("kill node {victim}, a follower"), true);
    run.cluster.node_mut(victim)?.kill()?;
    let tenth = TENTHS.start + run.random() % (TENTHS.end - TENTHS.start);
    let position = durable / 10 * tenth + run.random() % 1000;
    let file = flip(&run.cluster.node(victim)?.commitlog()?, position)?;
    run.recorder.fault(format!("flip a bit at position {position} of node {victim}'s log"), false);
    run.cluster.node_mut(victim)?.start()?;
    let mut finding = Finding::fatal("rot");
    if refused(run, victim).await? {
        let log =
            std::fs::read_to_string(run.cluster.node(victim)?.log_path()).context("read the node's log")?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !log.contains(&name) {
            finding.add(|| format!("node {victim} refused without naming {name}"));
        }
        // The operator mends it: here, by putting the bit back.
        let node = run.cluster.node_mut(victim)?;
        ensure!(!node.wait()?.success(), "node {victim} refused and ended with success");
        flip(&node.commitlog()?, position)?;
        node.start()?;
    } else {
        tracing::warn!("node {victim} started on a damaged log; the comparison of the logs judges it");
    }
    run.extra.push(finding);
    run.cluster.caught_up().await?;
    run.wait_about(2.0).await;
    Ok(())
}

/// Whether the node ended by itself; `false` when it runs and has caught up.
async fn refused(run: &mut Run, id: u64) -> Result<bool> {
    let started = Instant::now();
    let goal = run.cluster.statuses().await.iter().map(|status| status.committed).max().unwrap_or(0);
    while started.elapsed() < VERDICT_TIMEOUT {
        if run.cluster.node_mut(id)?.ended().is_some() {
            return Ok(true);
        }
        if run.cluster.status(id).await.is_ok_and(|status| status.applied >= goal) {
            return Ok(false);
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(false)
}

/// Flips the lowest bit of the byte at this position of the log; says in which file.
fn flip(commitlog: &Path, position: u64) -> Result<PathBuf> {
    let names = std::fs::read_dir(commitlog).with_context(|| format!("list {}", commitlog.display()))?;
    let starts = names.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok());
    let start = starts.filter(|start| *start <= position).max().context("a segment holds the position")?;
    let path = commitlog.join(format!("{start:020}"));
    let file = OpenOptions::new().read(true).write(true).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, position - start).with_context(|| format!("read {}", path.display()))?;
    byte[0] ^= 1;
    file.write_all_at(&byte, position - start).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::flip;

    #[test]
    fn a_bit_flipped_twice_is_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(format!("{:020}", 100));
        std::fs::write(dir.path().join(format!("{:020}", 0)), [0; 100]).unwrap();
        std::fs::write(&path, [7; 50]).unwrap();
        assert_eq!(flip(dir.path(), 110).unwrap(), path);
        assert_eq!(std::fs::read(&path).unwrap()[10], 6);
        flip(dir.path(), 110).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [7; 50]);
    }
}
