//! Orderly locks: taking or renewing queues for one client of a group, and giving them back.
//!
//! A lock lives 60 s without a renewal (upstream's `rebalance.lockMaxLiveTime`). It is a command in the
//! log, stamped with a clock that goes on from leader to leader: all replicas agree who holds a queue, and a
//! new leader goes on with the locks of the old one, whatever its wall clock says, instead of giving a queue
//! away twice.

use std::sync::Arc;

use folio_state::{Outcome, QueueRef, UnlockQueues};

use crate::broker::Broker;
use crate::changes::execute;
use crate::error::BrokerError;

/// How long a lock lives without a renewal; clients renew every 20 s.
const LOCK_TTL_MS: u64 = 60_000;

impl Broker {
    /// Locks queues for a client; those of them that the client holds now.
    pub async fn lock(
        &self,
        group: String,
        client: String,
        queues: Vec<QueueRef>,
    ) -> Result<Vec<QueueRef>, BrokerError> {
        let queues = self.existing(queues);
        match self.group.lock_queues(group, client, queues, LOCK_TTL_MS).await? {
            Outcome::Locked(held) => Ok(held),
            other => Err(BrokerError::Internal(format!("locking queues answered {other:?}"))),
        }
    }

    /// The queues that exist: a lock on another one would stay in the replicated state.
    fn existing(&self, mut queues: Vec<QueueRef>) -> Vec<QueueRef> {
        let state = self.group.state();
        queues
            .retain(|queue| state.topic(&queue.topic).is_some_and(|topic| queue.queue < topic.queue_count()));
        queues
    }

    /// Gives locks back; those of other clients are left alone.
    pub async fn unlock(
        self: &Arc<Self>,
        group: String,
        client: String,
        queues: Vec<QueueRef>,
    ) -> Result<(), BrokerError> {
        // A lock is its client's: nobody's rights are asked for.
        execute(self, vec![UnlockQueues { group, client, queues }.into()], false).await
    }
}
