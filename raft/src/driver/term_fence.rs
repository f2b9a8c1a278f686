//! What a leader does in its own term or not at all.

use std::sync::Arc;
use std::time::Duration;

use openraft::errors::Fatal;
use openraft::raft::ClientWriteResult;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::proposal::ProposeError;
use crate::shared::Shared;
use crate::state_machine::Raft;
use crate::status::{Role, Status};
use crate::types::{Body, Callback, CommittedLeaderId, TypeConfig};

/// How often a leader that waits looks whether its disk has filled: no progress tells it.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// A term that this node led in when it had applied every entry of earlier terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SettledTerm(u64);

#[cfg(test)]
impl SettledTerm {
    pub(crate) fn of_test(term: u64) -> SettledTerm {
        SettledTerm(term)
    }
}

/// Gives out settled terms, and proposes in them.
#[derive(Clone)]
pub(crate) struct TermFence {
    raft: Raft,
    shared: Arc<Shared>,
    status: watch::Receiver<Status>,
}

impl TermFence {
    pub(crate) fn new(raft: Raft, shared: Arc<Shared>, status: watch::Receiver<Status>) -> TermFence {
        TermFence { raft, shared, status }
    }

    /// The term to propose in: waits until all of earlier terms is applied here, and until `is_ready`, which changes with
    /// progress only. Fails where this node does not lead, or has no room.
    pub(crate) async fn settled(&self, is_ready: impl Fn() -> bool) -> Result<SettledTerm, ProposeError> {
        self.settled_with(|| self.shared.has_room(1), is_ready).await
    }

    /// The same for records that make room (`room.I2`): `has_room` says whether there is enough for them.
    pub(crate) async fn settled_with(
        &self,
        has_room: impl Fn() -> bool,
        is_ready: impl Fn() -> bool,
    ) -> Result<SettledTerm, ProposeError> {
        loop {
            let look = || {
                // It may have filled since the proposal was taken.
                if has_room() { self.look(&is_ready).transpose() } else { Some(Err(ProposeError::DiskFull)) }
            };
            let settled = self.shared.progress.until(look);
            if let Ok(settled) = timeout(LOOK_INTERVAL, settled).await {
                return settled;
            }
        }
    }

    /// `None` while the term is not settled.
    fn look(&self, is_ready: &impl Fn() -> bool) -> Result<Option<SettledTerm>, ProposeError> {
        if *self.shared.stopping.borrow() {
            return Err(ProposeError::Stopped("the group stops".into()));
        }
        let term = {
            let status = self.status.borrow();
            match &status.role {
                Role::Leader => status.term,
                Role::Stopped(why) => return Err(ProposeError::Stopped(why.clone())),
                _ => return Err(ProposeError::NotLeader { leader: status.leader }),
            }
        };
        Ok((self.shared.is_settled(term) && is_ready()).then_some(SettledTerm(term)))
    }

    /// Whether a record of so many bytes may be proposed that makes room (`room.I2`).
    pub(crate) fn has_place(&self, bytes: u64) -> bool {
        self.shared.has_place(bytes)
    }

    /// Whether this node leads.
    pub(crate) fn leads(&self) -> bool {
        self.status.borrow().role == Role::Leader
    }

    /// Proposes in that term or not at all. An error means that openraft's core has stopped; then the responder was dropped.
    pub(crate) async fn propose(
        &self,
        term: SettledTerm,
        body: Body,
        responder: Callback<ClientWriteResult<TypeConfig>>,
    ) -> Result<(), Fatal<TypeConfig>> {
        let request = self.raft.write(body).responder(responder);
        request.with_leader(CommittedLeaderId::new(term.0)).await
    }
}
