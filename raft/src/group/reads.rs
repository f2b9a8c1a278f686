//! Reads that see everything acknowledged before they were asked for.
//!
//! What a leader has applied is old in two cases: it was elected a moment ago and has not yet applied what
//! its predecessor acknowledged, or it was replaced and does not know it yet. [`Group::confirm`] rules out
//! both, without a write: the ReadIndex of the Raft thesis (§6.4).

use std::time::Duration;

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};

use super::Group;
use crate::proposal::ProposeError;

/// How long a quorum may take to confirm the leader: several elections.
const CONFIRM_MAX: Duration = Duration::from_secs(2);

impl Group {
    /// Waits until this node has proved that it still leads and has applied everything that was
    /// acknowledged before the call.
    pub async fn confirm(&self) -> Result<(), ProposeError> {
        let confirmed = self.0.raft.ensure_linearizable(ReadPolicy::ReadIndex);
        match tokio::time::timeout(CONFIRM_MAX, confirmed).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                Err(ProposeError::NotLeader { leader: forward.leader_id })
            }
            Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) | Err(_) => {
                Err(ProposeError::NotLeader { leader: None })
            }
            Ok(Err(RaftError::Fatal(fatal))) => Err(ProposeError::Stopped(fatal.to_string())),
        }
    }
}
