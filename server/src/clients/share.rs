//! One node's part of the client table, as it is told to its peers.
//!
//! JSON, as it changes more often than its format may: unknown fields are ignored, missing ones are
//! empty. Always the whole table: a lost one is made good by the next.

use serde::{Deserialize, Serialize};

use super::{Consumer, Producer};

/// A node's clients and where it is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Share {
    /// The process that tells it: a node that starts again counts from the beginning.
    pub(super) process: u64,
    /// Counts the changes of its table.
    pub(super) revision: u64,
    /// Where clients reach the node now; the founding membership may not know or be out of date.
    pub(super) addresses: Addresses,
    /// Its consumers.
    pub(super) consumers: Vec<Consumer>,
    /// Its producers.
    pub(super) producers: Vec<Producer>,
}

/// Where clients reach a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Addresses {
    /// Broker port, `host:port`.
    pub broker: String,
    /// NameServer port, `host:port`.
    pub namesrv: String,
}
