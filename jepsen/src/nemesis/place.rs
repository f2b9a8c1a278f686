//! Which file of a node is damaged, and how much of it means something.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

use super::Dice;
use crate::node::Node;

/// How long a file of that kind may take to be there: consume queues and snapshots are written some seconds after
/// their messages.
const THERE_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The log, below what the node had acknowledged: an old segment or the last one.
    Log,
    /// A consume queue or the checkpoint.
    Derived,
    /// The vote file.
    Vote,
    /// A snapshot.
    Snapshot,
}

impl Place {
    /// The file, and how many of its bytes mean something.
    pub(super) fn choose(self, node: &Node, durable: u64, dice: &mut Dice) -> Result<(PathBuf, u64)> {
        let group = node.group_dir()?;
        match self {
            Self::Vote => whole(group.join("vote")),
            Self::Derived => {
                let checkpoint = group.join("checkpoint");
                if checkpoint.exists() && dice.one_in(3) {
                    return whole(checkpoint);
                }
                whole(dice.one_of(&self.files(node)?).context("no consume queue has a file yet")?.clone())
            }
            Self::Snapshot => {
                whole(dice.one_of(&self.files(node)?).context("there is no snapshot yet")?.clone())
            }
            Self::Log => {
                let mut segments = self.files(node)?;
                let base = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u64>().ok();
                segments.retain(|path| base(path).is_some_and(|base| base < durable));
                // The last one as often as all older ones together.
                let older = segments.len().saturating_sub(1) as u64;
                let at = if dice.one_in(2) { older } else { dice.below(older) };
                let chosen = segments.get(at as usize).context("the log has no segment yet")?;
                let (path, len) = whole(chosen.clone())?;
                let start = base(chosen).unwrap_or_default();
                Ok((path, len.min(durable.saturating_sub(start))))
            }
        }
    }

    /// All files of that kind, in order; of the derived ones the consume queues.
    pub(super) fn files(self, node: &Node) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        match self {
            Self::Log => files_below(&node.commitlog()?, &mut files)?,
            Self::Derived => files_below(&node.group_dir()?.join("consumequeue"), &mut files)?,
            Self::Snapshot => files_below(&node.group_dir()?.join("snapshots"), &mut files)?,
            Self::Vote => files.push(node.group_dir()?.join("vote")),
        }
        files.sort();
        Ok(files)
    }

    /// Waits for a file to damage.
    pub(super) async fn until_there(self, node: &Node) -> Result<()> {
        let started = Instant::now();
        while self.files(node)?.is_empty() {
            ensure!(started.elapsed() < THERE_TIMEOUT, "node {} has no file for {self:?}", node.id);
            sleep(POLL).await;
        }
        Ok(())
    }
}

/// A file and its length, without the zeroes at its end: they are reserved space.
fn whole(path: PathBuf) -> Result<(PathBuf, u64)> {
    let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    Ok((path, used as u64))
}

fn files_below(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() { files_below(&path, files)? } else { files.push(path) }
    }
    Ok(())
}
