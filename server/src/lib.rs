//! The front doors of a FolioMQ node, its configuration and its life.
//!
//! The life of a request: `net` reads a frame, [`service`] gives it to the dispatcher, which finds its handler (or brings it to
//! the leader, `forward`); the handler decodes it, calls the broker, and `reply::Reply` answers.

pub mod admin;
mod answer;
pub mod config;
mod dispatch;
mod error;
mod forward;
mod forwards;
mod group_thread;
pub mod handlers;
pub mod hooks;
mod hosted;
mod identity;
mod incoming;
pub mod logging;
pub mod net;
pub mod node;
mod origin;
pub mod panics;
mod pending;
pub mod private_files;
pub mod remoting;
mod reply;
mod request;
mod request_table;
pub mod service;
