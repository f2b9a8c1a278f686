//! Reads that see everything acknowledged before they were asked for.
//!
//! What a leader has applied is old in two cases: it was elected a moment ago and has not yet applied what
//! its predecessor acknowledged, or it was replaced and does not know it yet. [`Group::confirm`] rules out
//! both, without a write: the ReadIndex of the Raft thesis (§6.4). Reads at the same time share a proof
//! ([`super::proofs`]); what a proof is, is in [`super::read_index`].

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Group;
use crate::proposal::ProposeError;
use crate::status::Role;

/// How long a quorum may take to confirm the leader: several elections.
const CONFIRM_MAX: Duration = Duration::from_secs(2);

impl Group {
    /// Whether this node leads and has yet to apply what was acknowledged before it was elected.
    pub fn is_settling(&self) -> bool {
        let status = self.0.status.borrow();
        status.role == Role::Leader && !self.0.shared.is_settled(status.term)
    }

    /// Waits until this node has applied what was acknowledged before it was elected, or leads no more, at most `limit`;
    /// whether it is settled.
    pub async fn settle(&self, limit: Duration) -> bool {
        let settled = self.0.shared.progress.until(|| (!self.is_settling()).then_some(()));
        tokio::time::timeout(limit, settled).await.is_ok()
    }

    /// Waits until `is_so`, which is looked at again after each entry that is applied here. Has no time limit of its own.
    pub async fn applied_until(&self, is_so: impl Fn() -> bool) {
        self.0.shared.progress.until(|| is_so().then_some(())).await;
    }

    /// Waits until this node has applied the entry of this index. Has no time limit of its own.
    pub async fn applied(&self, index: u64) {
        self.applied_until(|| self.0.shared.applied_index.load(Ordering::Acquire) >= index).await;
    }

    /// Waits until this node has proved that it still leads and has applied everything that was
    /// acknowledged before the call.
    pub async fn confirm(&self) -> Result<(), ProposeError> {
        let group = self.clone();
        self.0.proofs.share(move || prove(group.clone())).await
    }
}

/// One proof, which covers all that was acknowledged before it begins.
async fn prove(group: Group) -> Result<(), ProposeError> {
    let proof = tokio::time::timeout(CONFIRM_MAX, group.read_index());
    proof.await.unwrap_or(Err(ProposeError::NotLeader { leader: None }))
}
