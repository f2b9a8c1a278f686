//! Repairs snapshots that are damaged or gone: with a peer's copy, or made again from the log.
//!
//! A peer's copy of the same boundary is the same state; the checksum that the boundary's first record chains to tells a
//! copy of another history apart. Peers that have dropped these segments have none: then it is made again.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use folio_engine::checkpoint::Checkpoint;

use super::{Boundary, fetch, needed, remake};
use crate::config::GroupConfig;
use crate::group::mend::peers;
use crate::host::Host;
use crate::shared::Shared;
use crate::state_machine::Raft;
use crate::transport::network::Connections;

/// How long to wait before trying again.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Attempts after which the log says again what a repair waits for.
const WARN_EVERY: u32 = 20;

/// Why a snapshot could not be repaired.
#[derive(Debug, thiserror::Error)]
enum NotRepaired {
    /// This node's own files could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// No peer had a copy, and it could not be made again; the reason of each.
    #[error("{}", .0.join("; "))]
    NoSource(Vec<String>),
}

/// What the repairs need.
pub(crate) struct Repair {
    /// Set once openraft runs.
    pub(crate) raft: Arc<OnceLock<Raft>>,
    pub(crate) config: GroupConfig,
    pub(crate) host: Host,
    pub(crate) shared: Arc<Shared>,
    pub(crate) connections: Connections,
}

impl Repair {
    /// Repairs what is found damaged, until its task is aborted.
    pub(crate) async fn run(self) {
        let mut attempts: BTreeMap<u64, u32> = BTreeMap::new();
        loop {
            let damaged = self.shared.snapshots.all();
            attempts.retain(|position, _| damaged.contains(position));
            if damaged.is_empty() {
                self.shared.snapshots.found.notified().await;
                continue;
            }
            for position in damaged {
                let attempt = attempts.entry(position).or_default();
                match self.repair(position).await {
                    Ok(how) => {
                        self.shared.snapshots.forget(position);
                        tracing::warn!(position, how, "snapshot repaired");
                    }
                    Err(reason) if attempt.is_multiple_of(WARN_EVERY) => {
                        tracing::warn!(
                            position,
                            %reason,
                            "snapshot not repaired yet: no new replica starts from it"
                        );
                    }
                    Err(_) => {}
                }
                *attempt = attempt.wrapping_add(1);
            }
            if self.shared.snapshots.count() > 0 {
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }

    /// Returns how.
    async fn repair(&self, position: u64) -> Result<String, NotRepaired> {
        let shared = self.shared.clone();
        let looked = self.blocking(move || {
            // Dropped, or saved, since it was found.
            if !needed(&shared).contains(&position) || super::read(&shared.checkpoints, position).is_ok() {
                return Ok(None);
            }
            Boundary::at(&shared.log, position).map(Some)
        });
        let Some(boundary) = looked.await? else { return Ok("not needed any more, or whole again".into()) };
        let mut reasons = Vec::new();
        for (id, address) in peers(&self.raft, &self.config) {
            match self.fetch(boundary, id, &address).await {
                Ok(()) => return Ok(self.count(format!("with the copy of node {id}"))),
                Err(reason) => reasons.push(format!("node {id}: {reason}")),
            }
        }
        match self.remake(boundary).await {
            Ok(()) => Ok(self.count("made again from a later state and the log".into())),
            Err(reason) => {
                reasons.push(reason.to_string());
                Err(NotRepaired::NoSource(reasons))
            }
        }
    }

    /// From the nearest later snapshot; without one from the state of now.
    async fn remake(&self, boundary: Boundary) -> io::Result<()> {
        let now = match self.raft.get() {
            Some(raft) => {
                let captured =
                    raft.with_state_machine(|machine| Box::pin(std::future::ready(machine.capture())));
                Some(captured.await.map_err(io::Error::other)?)
            }
            None => None,
        };
        let shared = self.shared.clone();
        self.blocking(move || {
            let later = match remake::later_snapshot(&shared, &boundary)? {
                Some(later) => later,
                None => now.ok_or_else(|| io::Error::other("this node is still starting"))?.encode()?,
            };
            let made = remake::remake(&shared.log, &boundary, &later, &shared.skip_entry);
            let made = made.map_err(io::Error::other)?;
            save(&shared, &boundary, &made)
        })
        .await
    }

    fn count(&self, how: String) -> String {
        self.shared.snapshots.repaired.fetch_add(1, Ordering::Relaxed);
        how
    }

    async fn fetch(&self, boundary: Boundary, id: u64, address: &str) -> io::Result<()> {
        let requests = self.connections.requests(id, address, "snapshot-repair");
        let file: Bytes = fetch::fetch(&requests, boundary.position).await?;
        let shared = self.shared.clone();
        self.blocking(move || {
            let copy = fetch::checkpoint_of(&file).map_err(io::Error::other)?;
            save(&shared, &boundary, &copy)
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.host.blocking(work).await?
    }
}

fn save(shared: &Shared, boundary: &Boundary, snapshot: &Checkpoint) -> io::Result<()> {
    if !boundary.is_of(snapshot) {
        return Err(io::Error::other(format!("a state of {:?} and not of {boundary:?}", snapshot.base.id)));
    }
    shared.checkpoints.save_snapshot(snapshot).map_err(io::Error::other)
}
