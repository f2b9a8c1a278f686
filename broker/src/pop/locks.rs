//! One pop at a time of each queue that a group pops from: the next one is decided on what this one has left.
//!
//! Only the leader pops, so these locks are of one node. Two pops that were decided on the same state would ask for the same messages, and one of
//! them would read them in vain. A pop of any queue passes over those that are taken, and waits for one where it finds nothing else.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use folio_state::PopQueue;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Queues that share a lock wait for each other: few do.
const LOCKS: usize = 2048;

/// See the module.
pub(crate) struct PopLocks(Vec<Arc<Mutex<()>>>);

/// The right to pop from a queue, until it is dropped.
pub(super) struct PopLock {
    at: usize,
    _guard: OwnedMutexGuard<()>,
}

impl Default for PopLocks {
    fn default() -> Self {
        PopLocks((0..LOCKS).map(|_| Arc::default()).collect())
    }
}

fn place(queue: &PopQueue) -> usize {
    let mut hasher = DefaultHasher::new();
    queue.hash(&mut hasher);
    hasher.finish() as usize % LOCKS
}

impl PopLocks {
    /// The lock of a queue, if it is free. `held` is one that the caller has already.
    pub(super) fn try_lock(&self, queue: &PopQueue, held: &mut Option<PopLock>) -> Option<PopLock> {
        let at = place(queue);
        if let Some(lock) = held.take_if(|held| held.at == at) {
            return Some(lock);
        }
        let guard = self.0[at].clone().try_lock_owned().ok()?;
        Some(PopLock { at, _guard: guard })
    }

    /// Waits for the lock of a queue; the first request has it first. The caller has none.
    pub(super) async fn lock(&self, queue: &PopQueue) -> PopLock {
        let at = place(queue);
        PopLock { at, _guard: self.0[at].clone().lock_owned().await }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_pops_at_a_time_and_the_next_one_waits() {
        let locks = Arc::new(PopLocks::default());
        let queue = PopQueue { group: "g".into(), topic: "t".into(), queue: 0 };
        let first = locks.try_lock(&queue, &mut None).expect("free");
        assert!(locks.try_lock(&queue, &mut None).is_none());
        let (waiting, of) = (locks.clone(), queue.clone());
        let next = tokio::spawn(async move { waiting.lock(&of).await });
        drop(first);
        let mut held = Some(next.await.expect("no panic"));
        assert!(locks.try_lock(&queue, &mut None).is_none());
        assert!(locks.try_lock(&queue, &mut held).is_some() && held.is_none());
    }
}
