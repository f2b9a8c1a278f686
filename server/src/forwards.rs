//! What is under way from this node to the leader, and how much may be.

use std::sync::Arc;

use folio_broker::turns::Turns;
use tokio::sync::Semaphore;

/// Forwarded requests under way at a time.
const FORWARDS_MAX: usize = 4_096;

/// Bounds what is under way to the leader.
pub(crate) struct Forwards {
    pub(crate) under_way: Arc<Semaphore>,
    pub(crate) turns: Arc<Turns>,
}

impl Forwards {
    /// Of one node; nothing is under way.
    pub(crate) fn new(node_id: u64) -> Self {
        Self { under_way: Arc::new(Semaphore::new(FORWARDS_MAX)), turns: Turns::new(node_id) }
    }
}
