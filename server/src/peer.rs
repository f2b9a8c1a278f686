//! What nodes of one group say to each other besides Raft: the two ends of `Group::call`.
//!
//! A request is one kind byte and what follows it:
//!
//! | kind | what | follows | answer |
//! |---|---|---|---|
//! | 1 | a forwarded client request | see `forward.rs` | see `forward.rs` |
//! | 2 | what changed of a node's table of local clients | JSON, see `clients/share.rs` | what was heard of it, see there |
//! | 3 | "create this consumer group and its retry topic" | the group's name, UTF-8 | 0 done, 1 not leader, 2 failed |
//! | 4 | a forwarded commit of a consumer's offset | its order, then as kind 1 | as kind 1 |
//! | 5 | "have you applied the entry of this index?" | 8 bytes, little-endian | empty, once it has, or after a second |
//! | 6 | "what does this client know of an earlier send?" | see `sends/ask.rs` | see `sends/ask.rs` |
//!
//! Not here: Raft's own messages; they have their own connections.

use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};

use bytes::{Buf, Bytes};
use folio_broker::clients::Notice;
use folio_engine::queues::Arrival;
use folio_raft::group::Hooks;
use folio_raft::proposal::{Known, Knows, Question};

use crate::broker::Broker;
use crate::{applied, ask, forward, groups};

/// Kind byte of a forwarded request.
pub(crate) const FORWARD: u8 = 1;
/// Kind byte of a forwarded commit, which keeps its place among others.
pub(crate) const FORWARD_COMMIT: u8 = 4;
/// Kind byte of a part of a node's client table.
pub(crate) const CLIENTS: u8 = 2;
/// Kind byte of a request to create a consumer group.
pub(crate) const ENSURE_GROUP: u8 = 3;
/// Kind byte of the question whether an entry is applied.
pub(crate) const APPLIED: u8 = 5;
/// Kind byte of the question what a client knows of an earlier send.
pub(crate) const KNOWS: u8 = 6;

/// What the group calls on this node. It exists before the broker does: while the group replays its
/// log at start there is nobody to wake and nothing to serve.
#[derive(Default)]
pub struct NodeHooks {
    broker: OnceLock<Weak<Broker>>,
}

impl NodeHooks {
    /// From now on calls reach `broker`.
    pub fn attach(&self, broker: &Arc<Broker>) {
        // A second attachment would be a second broker on one group: the first stays.
        drop(self.broker.set(Arc::downgrade(broker)));
    }

    fn broker(&self) -> Option<Arc<Broker>> {
        self.broker.get()?.upgrade()
    }
}

impl Hooks for NodeHooks {
    fn call(&self, from: u64, request: Bytes) -> Pin<Box<dyn Future<Output = Bytes> + Send + 'static>> {
        let broker = self.broker();
        Box::pin(async move {
            match broker {
                Some(broker) => serve(&broker, from, request).await,
                None => forward::not_leader(),
            }
        })
    }

    fn knows(&self, question: Question) -> Known {
        self.broker().map_or(Known::Now(Knows::Gone), |broker| ask::knows(&broker, question))
    }

    fn applied(&self, arrivals: &[Arrival]) {
        if let Some(broker) = self.broker() {
            broker.polls.note(arrivals);
        }
    }

    fn state_changed(&self) {}
}

async fn serve(broker: &Arc<Broker>, from: u64, mut request: Bytes) -> Bytes {
    match request.try_get_u8() {
        Ok(kind @ (FORWARD | FORWARD_COMMIT)) => forward::serve(broker, kind, request).await,
        Ok(CLIENTS) => {
            let (notices, heard) = broker.clients.heard(from, &request);
            Notice::tell(notices);
            heard
        }
        Ok(KNOWS) => ask::serve(broker, request).await,
        Ok(ENSURE_GROUP) => groups::serve_ensure(broker, &request).await,
        Ok(APPLIED) => applied::serve(broker, request).await,
        _ => {
            tracing::error!(from, "a peer sent a request of an unknown kind: do all nodes run one version?");
            Bytes::new()
        }
    }
}
