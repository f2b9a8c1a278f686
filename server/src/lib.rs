//! The broker and NameServer of FolioMQ: a node, and all that a client can ask it.
//!
//! The life of a request: `net` reads a frame, [`dispatch`](crate::broker::Broker) finds its handler (or
//! `forward` takes it to the leader), the handler asks the group, and `reply::Reply` answers.

pub mod admin;
mod applied;
mod ask;
pub mod broker;
pub mod config;
mod dispatch;
mod error;
mod forward;
pub mod gossip;
mod group_thread;
mod groups;
pub mod handlers;
mod identity;
mod incoming;
pub mod logging;
pub mod net;
pub mod node;
pub mod panics;
pub mod peer;
pub mod private;
mod reply;
mod request;
mod request_table;
