//! Notices at once when the leader's process has died, long before its lease runs out.
//!
//! A process that dies takes its connections and its listener along. When a connection from the leader ends, this node
//! dials the leader: refused means that nobody listens there any more. A process may also have started anew by then: it
//! listens, and says that it does not lead. A leader that hangs, or is cut off, does neither; for it the election timeout
//! stays the only sign. Then the survivor with the longest log stands for election, the lowest id among equals, so that
//! votes are not split.
//!
//! Nothing depends on the sign being right: an election is safe at any time, since terms and logs decide it. A wrong sign
//! costs one change of leader, or a lease without one where two nodes stand at once.
//!
//! Invariant closed_connections.I1: a process that leads says so to every peer that learned of its leadership before asking.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

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
/// How long the leader is looked at: a dying process closes its sockets one after the other, its listener perhaps the last,
/// and one that starts anew takes a while to answer.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// Pause before the second look, doubled before each further one up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// How long a node may take to say what it is and where its log ends.
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
            if self.is_gone(peer, &following).await {
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

    /// Whether the process that led is gone, and perhaps another one is in its place. No answer says nothing, and one that
    /// leads may be about to close its listener: it is looked at again.
    async fn is_gone(&self, peer: u64, following: &Following) -> bool {
        let (deadline, mut pause) = (Instant::now() + LOOK_MAX, PAUSE_MIN);
        while Instant::now() < deadline && self.still_follows(peer, following) {
            match timeout(DIAL_TIMEOUT, self.connections.dial(peer, &following.leader)).await {
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
            let answer = self.ask(peer, &following.leader).await;
            if answer.is_some_and(|leader| !leader.leads) {
                return true;
            }
            sleep(pause).await;
            pause = PAUSE_MAX.min(2 * pause);
        }
        false
    }

    /// Whether nobody else has come in the leader's place.
    fn still_follows(&self, peer: u64, following: &Following) -> bool {
        self.following(peer).is_some_and(|now| now.vote == following.vote)
    }

    /// Stands for election, unless another survivor should and does.
    async fn stand(&self, peer: u64, following: Following) {
        let own = (self.shared.log.state().last, std::cmp::Reverse(following.own));
        let asked = following.others.iter().map(|(id, address)| async move {
            let other = self.ask(*id, address).await.filter(|other| !other.lost)?;
            Some((other.last(), std::cmp::Reverse(*id)))
        });
        let answers = futures_util::future::join_all(asked).await;
        let better = answers.into_iter().flatten().any(|other| other > own);
        if better {
            sleep(PATIENCE).await;
        }
        if self.still_follows(peer, &following) {
            self.shared.detector.gone(&self.shared.eligibility, Gone::ClosedConnection);
            // To openraft this is a transfer that the leader asked for: the others need not wait for its lease either.
            let request = TransferLeaderRequest::new(following.vote, following.own, None);
            if let Ok(Err(error)) = self.raft.handle_transfer_leader(request).await {
                tracing::debug!(%error, "no election at once");
            }
        }
    }

    /// What a node says of itself, if it does.
    async fn ask(&self, id: u64, address: &str) -> Option<LogSummary> {
        let requests = self.connections.requests(id, address, "closed connections");
        let answer = requests.request(Kind::Summary, Vec::new(), ANSWER_TIMEOUT).await.ok()?;
        codec::decode(&answer).ok()
    }
}
