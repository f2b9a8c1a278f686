//! What a node says of its group: our own admin request, answered on the broker's port.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::client::{Client, request};

/// The request's code. RocketMQ has none for this; codes from 90,001 on are FolioMQ's own.
const NODE_STATUS: i32 = 90_001;

/// One node's view of the group.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// The node that answered.
    pub node_id: u64,
    /// `leader`, `follower`, `learner`, `candidate` or `stopped`.
    pub role: String,
    /// Why it stopped, if it did.
    #[serde(default)]
    pub stopped: Option<String>,
    /// The leader it knows.
    pub leader: Option<u64>,
    /// Its term.
    pub term: u64,
    /// Last index it knows to be committed.
    pub committed: u64,
    /// Last index it has applied.
    pub applied: u64,
    /// Byte position up to which it has applied the log.
    pub applied_position: u64,
    /// Byte position up to which its log is on disk.
    pub durable_position: u64,
    /// The feature level that the group uses, as it has applied it.
    #[serde(default)]
    pub feature_level: u16,
    /// The highest feature level that its build supports.
    #[serde(default)]
    pub feature_level_max: u16,
    /// The ids that vote.
    #[serde(default)]
    pub voters: Vec<u64>,
}

impl Status {
    /// Whether it says it leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.role == "leader"
    }

    /// Where it is: applied and committed index.
    #[must_use]
    pub fn at(&self) -> (u64, u64) {
        (self.applied, self.committed)
    }
}

/// Asks the node at this broker address.
///
/// # Errors
/// When it does not answer, or not with a status.
pub async fn ask(client: &Client, broker: &str) -> Result<Status> {
    let answer = client.ask(broker, request(NODE_STATUS, [])).await?;
    let shown = || String::from_utf8_lossy(&answer.body).into_owned();
    serde_json::from_slice(&answer.body).with_context(|| format!("status of {broker}: {}", shown()))
}
