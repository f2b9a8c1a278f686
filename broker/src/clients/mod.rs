//! Who is connected: producers and consumers of this node, and what the other nodes say of theirs.
//!
//! A client registers at the node it is connected to. Each node tells its peers what changes in its part of the table
//! (`gossip.rs`, `share.rs`), so that every node gives the same answer to "who is in this group" and goes on
//! giving it when a node dies. Nothing of it is replicated through the log or written to disk: it is
//! as true as the connections are.
//!
//! Invariants
//! - clients.I1: a registration goes with its connection, with its peer's share, or after
//!   [`CLIENT_EXPIRES_AFTER`] without a heartbeat, whatever comes first.
//! - clients.I2: what a group is (`members.rs`) changes under the same lock as the registrations that it is derived from.
//! - clients.I3: what a peer has heard of one process never goes back to something older.
//! - clients.I5: a registration costs what it says itself, however many are in its group.

mod duplicates;
mod feed;
mod full;
pub mod limits;
mod local;
mod members;
mod registered;
mod share;
mod table;
mod view;

use std::time::Duration;

use folio_protocol::body::ConsumerData;
use serde::{Deserialize, Serialize};

pub(crate) use duplicates::Duplicate;
pub use full::Full;
pub use share::Addresses;
pub(crate) use share::{Outgoing, Progress};
pub use table::{ClientTable, Software};
pub(crate) use table::{Notice, ProducerPlace};
pub use view::{GroupView, Member};

/// RocketMQ's expiry of a channel without heartbeats.
pub const CLIENT_EXPIRES_AFTER: Duration = Duration::from_secs(120);
/// What a peer said of its clients is believed this long; it says so again every three seconds.
pub const SHARE_EXPIRES_AFTER: Duration = Duration::from_secs(15);

/// A client's process, as far as a broker knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientInfo {
    /// Its id, unique among clients.
    pub client_id: String,
    /// Its address as the node it is connected to sees it.
    pub address: String,
    /// Its language, RocketMQ's name.
    pub language: String,
    /// Its wire version.
    pub version: i32,
}

/// One client in one consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumer {
    /// Who.
    pub client: ClientInfo,
    /// Which group, how, and what it subscribes to.
    pub data: ConsumerData,
}

/// One client in one producer group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Producer {
    /// Who.
    pub client: ClientInfo,
    /// Which group.
    pub group: String,
}
