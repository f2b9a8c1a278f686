//! Notices at once when the leader's process has died, long before its lease runs out.
//!
//! A process that dies takes its connections and its listener along. When a connection from the leader ends, this node
//! dials the leader: refused means that nobody listens there any more. A leader that hangs, or is cut off, does not
//! refuse; for it the election timeout stays the only sign. Then the survivor with the longest log stands for election,
//! the lowest id among equals, so that votes are not split.
//!
//! Nothing depends on the sign being right: an election is safe at any time, since terms and logs decide it. A wrong sign
//! costs one change of leader.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use folio_engine::record::EntryId;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::failure_detector::Gone;
use super::log_summary::LogSummary;
use crate::codec;
use crate::shared::Shared;
use crate::state_machine::Raft;
use crate::transport::network::Connections;
use crate::transport::wire::Kind;
use crate::types::Vote;

/// How long dialing the leader may take; a dead process is refused by its machine within a round trip.
const DIAL_TIMEOUT: Duration = Duration::from_millis(50);
/// A dying process closes its sockets one after the other: the listener may be the last.
const DIALS: u32 = 4;
const DIAL_AGAIN_AFTER: Duration = Duration::from_millis(5);
/// How long another survivor may take to say where its log ends.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(50);
/// How long the one that should stand is waited for.
const PATIENCE: Duration = Duration::from_millis(100);

/// What a node needs to notice, and to stand.
pub(crate) struct ClosedConnections {
    pub(crate) raft: Raft,
    pub(crate) shared: Arc<Shared>,
    pub(crate) connections: Connections,
}

/// The leader this node follows, and the other survivors.
struct Following {
    vote: Vote,
    own: u64,
    leader: String,
    others: Vec<(u64, String)>,
}

impl ClosedConnections {
    /// Watches until its task is aborted; `ended` has the id of a peer whenever a connection from it has ended.
    pub(crate) async fn run(self, mut ended: mpsc::Receiver<u64>) {
        while let Some(peer) = ended.recv().await {
            let Some(following) = self.following(peer) else { continue };
            if self.is_dead(peer, &following.leader).await {
                tracing::info!(leader = peer, "the leader's process is gone");
                self.stand(peer, following).await;
            }
        }
    }

    /// Set when `peer` leads and this node may take its place.
    fn following(&self, peer: u64) -> Option<Following> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let follows = metrics.current_leader == Some(peer) && peer != metrics.id;
        if !follows || !voters.contains(&metrics.id) || !self.shared.eligibility.may_lead() {
            return None;
        }
        let mut leader = None;
        let mut others = Vec::new();
        for (id, node) in membership.nodes() {
            if *id == peer {
                leader = Some(node.raft.clone());
            } else if *id != metrics.id && voters.contains(id) {
                others.push((*id, node.raft.clone()));
            }
        }
        Some(Following { vote: metrics.vote, own: metrics.id, leader: leader?, others })
    }

    async fn is_dead(&self, peer: u64, address: &str) -> bool {
        for _ in 0..DIALS {
            match timeout(DIAL_TIMEOUT, self.connections.dial(peer, address)).await {
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return true,
                Ok(_) => sleep(DIAL_AGAIN_AFTER).await,
                Err(_) => return false,
            }
        }
        false
    }

    /// Stands for election, unless another survivor should and does.
    async fn stand(&self, peer: u64, following: Following) {
        let own = (self.shared.log.state().last, std::cmp::Reverse(following.own));
        let asked = following.others.iter().map(|(id, address)| self.ask(*id, address));
        let answers = futures_util::future::join_all(asked).await;
        let better = answers.into_iter().flatten().any(|other| other > own);
        if better {
            sleep(PATIENCE).await;
        }
        let still = self.following(peer).is_some_and(|now| now.vote == following.vote);
        if still {
            self.shared.detector.gone(&self.shared.eligibility, Gone::ClosedConnection);
            // To openraft this is a transfer that the leader asked for: the others need not wait for its lease either.
            let request = TransferLeaderRequest::new(following.vote, following.own, None);
            if let Ok(Err(error)) = self.raft.handle_transfer_leader(request).await {
                tracing::debug!(%error, "no election at once");
            }
        }
    }

    /// Where another survivor's log ends, in the order of who should stand.
    async fn ask(&self, id: u64, address: &str) -> Option<(Option<EntryId>, std::cmp::Reverse<u64>)> {
        let requests = self.connections.requests(id, address, "closed connections");
        let answer = requests.request(Kind::Summary, Vec::new(), ANSWER_TIMEOUT).await.ok()?;
        let summary: LogSummary = codec::decode(&answer).ok()?;
        (!summary.lost).then(|| (summary.last(), std::cmp::Reverse(id)))
    }
}
