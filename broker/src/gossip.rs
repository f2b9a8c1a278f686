//! Tells the other nodes who is connected to this one, and forgets who is not heard of any more.
//!
//! What has changed since a peer last answered goes out at every change (gathered for a moment), and nothing every few
//! seconds without one, as a sign of life; in parts that are far below a frame (`clients/share.rs`). A client that leaves
//! does not wait for the moment: it is answered once every other living node has taken it off its lists, so that the members
//! that rebalance then find it nowhere. A node that does not answer holds the answer up for a second at most; it lists
//! the client until the next change reaches it, or nothing has reached it for [`crate::clients::SHARE_EXPIRES_AFTER`].
//!
//! Invariant `gossip.I1`: an unregistration is answered when every other member that answers has heard of it, or after a second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::broker::Broker;
use crate::clients::{Notice, Outgoing, Progress};
use crate::peers;

/// A peer that hears nothing for five of these forgets our clients.
const REPEAT_AFTER: Duration = Duration::from_secs(3);
/// How often silent clients and peers are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// A peer that does not answer in this time hears the same again with the next change.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// Waits until every other living node knows who is connected here now.
pub(crate) async fn tell_all(broker: &Broker) {
    let members = broker.other_members();
    broker.hearing.heard(members.iter().copied(), broker.clients.revision()).await;
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
        broker.hearing.gather().await;
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
                broker.hearing.told(node, revision, true);
                if part.complete {
                    return heard;
                }
            }
            // It has started again: it is told everything.
            Ok(_) if heard.take().is_some() => {}
            Ok(_) => {
                broker.hearing.told(node, 0, false);
                tracing::warn!(node, "a peer does not take our clients over: do all nodes run one version?");
                return None;
            }
            Err(error) => {
                broker.hearing.told(node, 0, false);
                tracing::debug!("a peer did not hear of our clients: {error}");
                return heard;
            }
        }
    }
}

fn encode(part: &Outgoing) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + part.bytes.len());
    out.put_u8(peers::CLIENTS);
    out.extend_from_slice(&part.bytes);
    out.freeze()
}
