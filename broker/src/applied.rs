//! Waiting until the other nodes have applied what this one has: a follower serves what it has applied, so a deletion is
//! answered when no node that answers gives out what is deleted.
//!
//! A node that is dead, cut off or behind does not hold the answer up for longer than [`APPLIED_TIMEOUT`]. It gives out what
//! it has until it has applied the deletion; a consumer that asks where to begin is answered by the leader, and begins behind
//! it.
//!
//! Invariant `applied.I1`: a deletion is answered when every member that answers has applied it, or after
//! [`APPLIED_TIMEOUT`].

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::broker::Broker;
use crate::peers;

/// How long a deletion waits for the other nodes: many times what a follower is behind, less than any client waits.
const APPLIED_TIMEOUT: Duration = Duration::from_secs(1);

/// Waits until every other living node has applied what is applied here.
pub(crate) async fn everywhere(broker: &Arc<Broker>) {
    let mut request = BytesMut::with_capacity(9);
    request.put_u8(peers::APPLIED);
    request.put_u64_le(broker.group.status().applied);
    let request = request.freeze();
    let mut asked = JoinSet::new();
    for node in broker.other_members() {
        let (broker, request) = (broker.clone(), request.clone());
        asked.spawn(async move { broker.group.call(node, request, APPLIED_TIMEOUT).await });
    }
    while let Some(answer) = asked.join_next().await {
        if let Ok(Err(error)) = answer {
            tracing::warn!("a node may give out what is deleted until it has applied the deletion: {error}");
        }
    }
}

/// The other node's side: answers when it has applied the entry, or when nobody waits for that any more.
pub(crate) async fn serve(broker: &Broker, mut request: Bytes) -> Bytes {
    let Ok(index) = request.try_get_u64_le() else { return Bytes::new() };
    drop(timeout(APPLIED_TIMEOUT, broker.group.applied(index)).await);
    Bytes::new()
}
