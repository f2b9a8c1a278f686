//! The broker and NameServer of FolioMQ, and its command line.
//!
//! The life of a request: `net` reads a frame, [`dispatch`](crate::broker::Broker) finds its handler (or
//! `forward` takes it to the leader), the handler asks the group, and [`reply::Reply`] answers.

pub mod admin;
mod applied;
pub mod bench;
pub mod broker;
pub mod cli;
pub mod client;
pub mod clients;
pub mod cluster;
pub mod config;
mod dispatch;
pub mod error;
pub mod forward;
pub mod gossip;
mod group_thread;
mod groups;
pub mod handlers;
pub mod identity;
pub mod logging;
pub mod net;
pub mod node;
pub mod old_reads;
mod panics;
pub mod peer;
pub mod polls;
mod private;
pub mod reply;
pub mod request;
pub mod sends;
pub mod settings;
mod stalls;
pub mod system;
mod turns;
