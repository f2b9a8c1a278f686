//! Tells the other nodes who is connected to this one, and forgets who is not heard of any more.
//!
//! The whole table goes out at every change (gathered for a moment) and every few seconds without one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::broker::Broker;
use crate::handlers::clients::tell;
use crate::peer;

/// Changes within this time go out together: a starting consumer group is many heartbeats.
const GATHER: Duration = Duration::from_millis(50);
/// A peer that hears nothing for five of these forgets our clients.
const REPEAT_AFTER: Duration = Duration::from_secs(3);
/// How often silent clients and peers are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// A peer that does not answer in this time hears the next share.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs until the node stops.
pub(crate) async fn run(broker: Arc<Broker>) {
    tokio::join!(tell_peers(&broker), expire(&broker));
}

async fn expire(broker: &Broker) {
    let mut ticks = interval(EXPIRE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        tell(broker.clients.expire());
    }
}

async fn tell_peers(broker: &Arc<Broker>) {
    let mut peers: BTreeMap<u64, watch::Sender<Bytes>> = BTreeMap::new();
    loop {
        let share = encode(broker);
        let members = broker.other_members();
        // Dropping a sender ends its task.
        peers.retain(|node, _| members.contains(node));
        for node in members {
            let peer = peers.entry(node).or_insert_with(|| start(broker.clone(), node));
            peer.send_replace(share.clone());
        }
        drop(timeout(REPEAT_AFTER, broker.clients.changed()).await);
        sleep(GATHER).await;
    }
}

fn encode(broker: &Broker) -> Bytes {
    let share = broker.clients.share();
    let mut out = BytesMut::with_capacity(1 + share.len());
    out.put_u8(peer::CLIENTS);
    out.extend_from_slice(&share);
    out.freeze()
}

/// One task per peer: shares reach it in order, and a slow peer holds up no other.
fn start(broker: Arc<Broker>, node: u64) -> watch::Sender<Bytes> {
    let (sender, mut receiver) = watch::channel(Bytes::new());
    tokio::spawn(async move {
        while receiver.changed().await.is_ok() {
            let share = receiver.borrow_and_update().clone();
            if let Err(error) = broker.group.call(node, share, CALL_TIMEOUT).await {
                tracing::debug!("a peer did not hear of our clients: {error}");
            }
        }
    });
    sender
}
