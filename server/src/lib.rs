//! The broker and NameServer of FolioMQ: a node, and all that a client can ask it.
//!
//! The life of a request: `net` reads a frame, [`dispatch`](crate::broker::Broker) finds its handler (or
//! `forward` takes it to the leader), the handler asks the group, and `reply::Reply` answers.

pub mod admin;
mod applied;
pub mod broker;
pub mod clients;
pub mod config;
mod dispatch;
mod error;
mod forward;
pub mod gossip;
mod group_thread;
mod groups;
pub mod handlers;
mod identity;
pub mod logging;
pub mod net;
pub mod node;
pub mod old_reads;
pub mod panics;
pub mod peer;
mod polls;
pub mod private;
mod reply;
mod request;
mod request_table;
mod sends;
pub mod settings;
mod stalls;
mod system;
mod turns;
