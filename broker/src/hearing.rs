//! How far the other nodes have heard who is connected to this one.

use std::collections::BTreeMap;
use std::time::Duration;

use folio_raft::log_rate_limiter::LogRateLimiter;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

/// Changes within this time go out together: a starting consumer group is many heartbeats.
const GATHER: Duration = Duration::from_millis(50);
/// How long a client that leaves waits for the other nodes: less than the three seconds that clients wait.
const TELL_TIMEOUT: Duration = Duration::from_secs(1);

/// What a peer is known to have heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Peer {
    revision: u64,
    /// It did not answer when it was last told something.
    silent: bool,
}

/// How far the peers have heard of this node's clients.
#[derive(Default)]
pub(crate) struct Hearing {
    peers: watch::Sender<BTreeMap<u64, Peer>>,
    urgent: Notify,
    late: LogRateLimiter,
}

impl Hearing {
    /// Waits until these nodes have heard of everything up to a revision (`gossip.I1`).
    pub(crate) async fn heard(&self, nodes: impl Iterator<Item = u64> + Clone, revision: u64) {
        let mut peers = self.peers.subscribe();
        let know = |peers: &BTreeMap<u64, Peer>| {
            let mut known = nodes.clone().map(|node| peers.get(&node).copied().unwrap_or_default());
            known.all(|peer| peer.silent || peer.revision >= revision)
        };
        if know(&peers.borrow_and_update()) {
            return;
        }
        self.urgent.notify_one();
        if timeout(TELL_TIMEOUT, peers.wait_for(know)).await.is_err()
            && let Some(left_out) = self.late.admit()
        {
            tracing::warn!(
                left_out,
                "a node that does not answer within {TELL_TIMEOUT:?} still lists a client that has left"
            );
        }
    }

    /// A peer was told of everything up to a revision, and answered or did not.
    pub(crate) fn told(&self, node: u64, revision: u64, answered: bool) {
        self.peers.send_modify(|peers| {
            let peer = peers.entry(node).or_default();
            peer.silent = !answered;
            if answered {
                peer.revision = peer.revision.max(revision);
            }
        });
    }

    /// Waits as long as changes are gathered, or until a client waits for them to be told.
    pub(crate) async fn gather(&self) {
        tokio::select! {
            () = sleep(GATHER) => {}
            () = self.urgent.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// Whether the wait for nodes 2 and 3 to hear of revision 7 ends, with these answers coming after each other.
    async fn waits(answers: &[(u64, u64, bool)]) -> Duration {
        let hearing = Hearing::default();
        let start = Instant::now();
        let answering = async {
            for (node, revision, answered) in answers {
                sleep(Duration::from_millis(1)).await;
                hearing.told(*node, *revision, *answered);
            }
        };
        tokio::join!(hearing.heard([2, 3].into_iter(), 7), answering);
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn gossip_i1_a_client_that_leaves_waits_for_every_node_that_answers_and_not_for_ever() {
        let quick = Duration::from_millis(100);
        assert!(waits(&[(2, 7, true), (3, 8, true)]).await < quick);
        assert!(waits(&[(2, 7, true), (3, 7, false)]).await < quick, "its process has died");
        assert_eq!(waits(&[(2, 7, true)]).await, TELL_TIMEOUT, "it hangs");
        assert_eq!(waits(&[(2, 7, true), (3, 6, true)]).await, TELL_TIMEOUT, "that was an older table");
        assert!(waits(&[(2, 9, true), (3, 6, true), (3, 7, true)]).await < quick);
    }
}
