//! A node whose checkpoint and snapshots are all gone, while its log is there without its beginning, gets a snapshot from a
//! peer before it opens: one of any segment's start that its log has.
//!
//! Peers are known by the configuration alone then. Where none has such a snapshot the start is refused.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use folio_engine::checkpoint::Checkpoints;
use tokio::time::Instant;

use super::fetch;
use crate::config::GroupConfig;
use crate::feature_level::GroupLevel;
use crate::group::group_id::GroupIdFile;
use crate::group::recover::{self, RecoverError, Recovered};
use crate::host::Host;
use crate::transport::introduction::{Identity, Introduction};
use crate::transport::requests::Requests;
use crate::transport::wire::Purpose;

/// How long peers are asked: they may be starting as well.
const ASK_TIME: Duration = Duration::from_secs(10);
/// Pause between two rounds.
const ASK_INTERVAL: Duration = Duration::from_millis(500);

/// Opens a node's files.
pub(crate) async fn open(config: &GroupConfig, host: &Host) -> anyhow::Result<Recovered> {
    let refused = match try_open(config, host).await {
        Err(error @ RecoverError::NoState { .. }) if config.nodes.len() > 1 => error,
        opened => return Ok(opened?),
    };
    tracing::warn!("no checkpoint and no snapshot of this node is whole: a peer is asked for one");
    let introduction = introduce(config, host).await?;
    let deadline = Instant::now() + ASK_TIME;
    while Instant::now() < deadline {
        // From the newest on: one that lies beyond the log's end does not fit, the one before it does.
        for position in segments(config, host).await?.into_iter().rev() {
            if fetch_from_any(config, host, &introduction, position).await? {
                match try_open(config, host).await {
                    Err(RecoverError::NoState { .. }) => {}
                    opened => return Ok(opened?),
                }
            }
        }
        tokio::time::sleep(ASK_INTERVAL).await;
    }
    Err(anyhow::Error::from(refused)
        .context("no peer has a snapshot of a segment's start that is in this node's log"))
}

/// The log is there, so the group has an id.
async fn introduce(config: &GroupConfig, host: &Host) -> anyhow::Result<Introduction> {
    let (config, disk) = (config.clone(), host.disk.clone());
    let introduced = host.blocking(move || {
        let names = (config.cluster.as_str(), config.group.as_str());
        let group_id = GroupIdFile::open(disk, &config.data_dir, names, false)?;
        anyhow::Ok(Introduction::new(Identity::of(&config, &GroupLevel::default()), Arc::new(group_id)))
    });
    introduced.await?
}

async fn try_open(config: &GroupConfig, host: &Host) -> Result<Recovered, RecoverError> {
    let (config, on) = (config.clone(), host.clone());
    host.blocking(move || recover::open(&config, &on)).await?
}

/// The positions of the log's segments, ascending.
async fn segments(config: &GroupConfig, host: &Host) -> anyhow::Result<Vec<u64>> {
    let (dir, disk) = (config.data_dir.join("commitlog"), host.disk.clone());
    let listed = host.blocking(move || disk.list(&dir)).await?.context("list the segments of the log")?;
    let position = |path: &Path| path.file_name()?.to_str()?.parse::<u64>().ok();
    let mut positions: Vec<u64> = listed.iter().filter_map(|path| position(path)).collect();
    positions.retain(|position| *position > 0);
    positions.sort_unstable();
    Ok(positions)
}

/// Whether a peer had the snapshot of `position`, which is saved then.
async fn fetch_from_any(
    config: &GroupConfig,
    host: &Host,
    introduction: &Introduction,
    position: u64,
) -> anyhow::Result<bool> {
    for (id, node) in config.nodes.iter().filter(|(id, _)| **id != config.node_id) {
        let address = config.dial.get(id).unwrap_or(&node.raft).clone();
        let requests = Requests::new(host.net.clone(), address, introduction.to(*id, Purpose::Requests));
        let Ok(file) = fetch::fetch(&requests, position).await else { continue };
        let (dir, disk) = (config.data_dir.clone(), host.disk.clone());
        let saved = host.blocking(move || {
            let checkpoint = fetch::checkpoint_of(&file)?;
            anyhow::ensure!(checkpoint.base.position == position, "a snapshot of another position");
            anyhow::Ok(Checkpoints::open(disk, &dir)?.save_snapshot(&checkpoint)?)
        });
        match saved.await? {
            Ok(()) => {
                tracing::warn!(position, from = id, "snapshot fetched from a peer");
                return Ok(true);
            }
            Err(error) => tracing::warn!(position, from = id, %error, "a peer's snapshot is not usable"),
        }
    }
    Ok(false)
}
