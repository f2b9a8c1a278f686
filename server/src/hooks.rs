//! What the group calls on this node: nodes of one group serve each other, and hear of what is applied.
//!
//! A request between nodes is one kind byte and what follows it. The broker's kinds: `broker/src/peers.rs`. Those of this crate:
//!
//! | kind | what | follows | answer |
//! |---|---|---|---|
//! | 1 | a forwarded client request | see `forward.rs` | see `answer.rs` |
//! | 4 | a forwarded commit of a consumer's offset | its order, then as kind 1 | as kind 1 |

use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};

use bytes::{Buf, Bytes};
use folio_broker::{ask, calls};
use folio_engine::queues::Arrival;
use folio_raft::group::Hooks;
use folio_raft::proposal::{Known, Knows, Question};

use crate::answer::not_leader;
use crate::forward;
use crate::remoting::Remoting;

/// What the group calls on this node. It exists before the broker does: while the group replays its
/// log at start there is nobody to wake and nothing to serve.
#[derive(Default)]
pub struct NodeHooks {
    remoting: OnceLock<Weak<Remoting>>,
}

impl NodeHooks {
    /// From now on calls reach what is behind this front door.
    pub fn attach(&self, remoting: &Arc<Remoting>) {
        // A second attachment would be a second broker on one group: the first stays.
        drop(self.remoting.set(Arc::downgrade(remoting)));
    }

    fn remoting(&self) -> Option<Arc<Remoting>> {
        self.remoting.get()?.upgrade()
    }
}

impl Hooks for NodeHooks {
    fn call(&self, from: u64, request: Bytes) -> Pin<Box<dyn Future<Output = Bytes> + Send + 'static>> {
        let remoting = self.remoting();
        Box::pin(async move {
            match remoting {
                Some(remoting) => serve(&remoting, from, request).await,
                None => not_leader(),
            }
        })
    }

    fn knows(&self, question: Question) -> Known {
        let remoting = self.remoting();
        remoting.map_or(Known::Now(Knows::Gone), |remoting| ask::knows(&remoting.broker, question))
    }

    fn applied(&self, arrivals: &[Arrival]) {
        if let Some(remoting) = self.remoting() {
            remoting.broker.arrived(arrivals);
        }
    }

    fn state_changed(&self) {}
}

async fn serve(remoting: &Arc<Remoting>, from: u64, mut request: Bytes) -> Bytes {
    let kind = request.try_get_u8().ok();
    let answer = match kind {
        Some(kind @ (forward::FORWARD | forward::FORWARD_COMMIT)) => {
            Some(forward::serve(remoting, kind, request).await)
        }
        Some(kind) => calls::serve(&remoting.broker, from, kind, request).await,
        None => None,
    };
    answer.unwrap_or_else(|| {
        tracing::error!(from, "a peer sent a request of an unknown kind: do all nodes run one version?");
        Bytes::new()
    })
}
