//! Tells the other nodes who is connected to this one, and forgets who is not heard of any more.
//!
//! What has changed since a peer last answered goes out at every change (gathered for a moment), and nothing every few
//! seconds without one, as a sign of life; in parts that are far below a frame (`clients/share.rs`). A client that leaves
//! does not wait for the moment: it is answered once every other living node has taken it off its lists, so that the members
//! that rebalance then find it nowhere. A node that does not answer holds the answer up for [`TELL_TIMEOUT`] at most; it lists
//! the client until the next change reaches it, or nothing has reached it for [`folio_broker::clients::SHARE_EXPIRES_AFTER`].
//!
//! Invariant `gossip.I1`: an unregistration is answered when every other member that answers has heard of it, or after
//! [`TELL_TIMEOUT`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use folio_broker::clients::{Notice, Outgoing, Progress};
use folio_raft::log_rate_limiter::LogRateLimiter;
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::broker::Broker;
use crate::peer;

/// Changes within this time go out together: a starting consumer group is many heartbeats.
const GATHER: Duration = Duration::from_millis(50);
/// A peer that hears nothing for five of these forgets our clients.
const REPEAT_AFTER: Duration = Duration::from_secs(3);
/// How often silent clients and peers are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// A peer that does not answer in this time hears the same again with the next change.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
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
pub struct Gossip {
    peers: watch::Sender<BTreeMap<u64, Peer>>,
    urgent: Notify,
    late: LogRateLimiter,
}

impl Gossip {
    /// Waits until these nodes have heard of everything up to a revision (`gossip.I1`).
    async fn heard(&self, nodes: impl Iterator<Item = u64> + Clone, revision: u64) {
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

    fn told(&self, node: u64, revision: u64, answered: bool) {
        self.peers.send_modify(|peers| {
            let peer = peers.entry(node).or_default();
            peer.silent = !answered;
            if answered {
                peer.revision = peer.revision.max(revision);
            }
        });
    }

    /// Waits as long as changes are gathered, or until a client waits for them to be told.
    async fn gather(&self) {
        tokio::select! {
            () = sleep(GATHER) => {}
            () = self.urgent.notified() => {}
        }
    }
}

/// Waits until every other living node knows who is connected here now.
pub(crate) async fn tell_all(broker: &Broker) {
    let members = broker.other_members();
    broker.gossip.heard(members.iter().copied(), broker.clients.revision()).await;
}

/// Runs until the node stops.
pub async fn run(broker: Arc<Broker>) {
    tokio::join!(tell_peers(&broker), expire(&broker));
}

async fn expire(broker: &Broker) {
    let mut ticks = interval(EXPIRE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        Notice::tell(broker.clients.expire());
    }
}

async fn tell_peers(broker: &Arc<Broker>) {
    let mut peers: BTreeMap<u64, watch::Sender<()>> = BTreeMap::new();
    loop {
        let members = broker.other_members();
        // Dropping a sender ends its task.
        peers.retain(|node, _| members.contains(node));
        for node in members {
            peers.entry(node).or_insert_with(|| start(broker.clone(), node)).send_replace(());
        }
        drop(timeout(REPEAT_AFTER, broker.clients.changed()).await);
        broker.gossip.gather().await;
    }
}

/// One task per peer: changes reach it in order, a slow peer holds up no other, and what changes while it answers goes out
/// together.
fn start(broker: Arc<Broker>, node: u64) -> watch::Sender<()> {
    let (sender, mut receiver) = watch::channel(());
    tokio::spawn(async move {
        let mut heard = None;
        while receiver.changed().await.is_ok() {
            heard = tell_changes(&broker, node, heard).await;
        }
    });
    sender
}

/// Tells a peer what it has not heard, part by part; what it has heard then.
async fn tell_changes(broker: &Broker, node: u64, mut heard: Option<Progress>) -> Option<Progress> {
    loop {
        let part = broker.clients.part(heard);
        match broker.group.call(node, encode(&part), CALL_TIMEOUT).await {
            Ok(answer) if part.is_heard(&answer) => {
                heard = Some(part.then);
                // Of a part of everything, it cannot be said what the peer lists.
                let revision = if part.complete { part.then.revision() } else { 0 };
                broker.gossip.told(node, revision, true);
                if part.complete {
                    return heard;
                }
            }
            // It has started again: it is told everything.
            Ok(_) if heard.take().is_some() => {}
            Ok(_) => {
                broker.gossip.told(node, 0, false);
                tracing::warn!(node, "a peer does not take our clients over: do all nodes run one version?");
                return None;
            }
            Err(error) => {
                broker.gossip.told(node, 0, false);
                tracing::debug!("a peer did not hear of our clients: {error}");
                return heard;
            }
        }
    }
}

fn encode(part: &Outgoing) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + part.bytes.len());
    out.put_u8(peer::CLIENTS);
    out.extend_from_slice(&part.bytes);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// Whether the wait for nodes 2 and 3 to hear of revision 7 ends, with these answers coming after each other.
    async fn waits(answers: &[(u64, u64, bool)]) -> Duration {
        let gossip = Gossip::default();
        let start = Instant::now();
        let answering = async {
            for (node, revision, answered) in answers {
                sleep(Duration::from_millis(1)).await;
                gossip.told(*node, *revision, *answered);
            }
        };
        tokio::join!(gossip.heard([2, 3].into_iter(), 7), answering);
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
