//! What the server provides to its group.

use bytes::Bytes;
use folio_engine::queues::Arrival;
use openraft::base::BoxFuture;

use crate::proposal::{Known, Knows, Question};

/// See the module.
pub trait Hooks: Send + Sync + 'static {
    /// Answers a request that another node made with `Group::call`.
    fn call(&self, from: u64, request: Bytes) -> BoxFuture<'static, Bytes>;
    /// What the client of an earlier send knows of its outcome; asked for a repeat. Called on the proposing task: must not
    /// block. A server that keeps no account of its connections takes each repeat for a retry.
    fn knows(&self, question: Question) -> Known {
        drop(question);
        Known::Now(Knows::Doubtful)
    }
    /// Messages became visible to readers of this node. Called on the applying task: must not block.
    fn applied(&self, arrivals: &[Arrival]);
    /// Topics, groups, offsets, locks or members changed. Called on the applying task: must not block.
    fn state_changed(&self);
}
