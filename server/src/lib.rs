//! The broker and NameServer of FolioMQ, and its command line.
//!
//! The life of a request: `net` reads a frame, [`dispatch`](crate::broker::Broker) finds its handler (or
//! `forward` takes it to the leader), the handler asks the group, and `reply::Reply` answers.

pub mod admin;
mod applied;
mod bench;
pub mod broker;
pub mod cli;
mod client;
pub mod clients;
mod cluster;
mod config;
mod dispatch;
mod error;
mod forward;
pub mod gossip;
mod group_thread;
mod groups;
pub mod handlers;
mod identity;
mod logging;
pub mod net;
mod node;
pub mod old_reads;
mod panics;
pub mod peer;
mod polls;
mod private;
mod reply;
mod request;
mod request_table;
mod sends;
pub mod settings;
mod stalls;
mod system;
mod turns;
