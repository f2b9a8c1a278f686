#![forbid(unsafe_code)]
//! The bytes of RocketMQ: messages as they are stored, and frames as they are sent.
//!
//! | module | what it holds |
//! |---|---|
//! | [`message`] | stored messages: encode, parse in place, stamp offsets |
//! | [`properties`] | the property string inside a message |
//! | [`batch`] | the body of SEND_BATCH_MESSAGE |
//! | [`frame`] | remoting frames with JSON or binary headers |
//! | [`ext`] | the named strings of a header |
//! | [`fields`] | the same on their way out, without a list |
//! | [`header`] | typed request and response headers |
//! | [`body`] | JSON bodies: routes, heartbeats, topic and group configs |
//! | [`code`] | request, response and language codes |
//! | [`flags`] | message, pull and permission bits |
//! | [`names`] | reserved names, name rules |
//! | [`half`] | half messages of transactions, and what becomes of them |
//! | [`origin`] | where a retried message lay first |
//! | [`parked`] | delayed messages as the log keeps them until they are due |
//! | [`popped`] | handles of popped messages, and what is stored of those that come again |
//! | [`recall`] | handles by which delayed messages are recalled |
//! | [`ids`] | offset message ids and unique ids |
//! | [`subscription`] | TAG expressions |
//! | [`java`] | Java's string hash |
//! | [`limits`] | every limit, named |
//!
//! What it is not: no I/O, no clock, no randomness, no async. It depends on nothing of ours, and
//! everything of ours may depend on it.
//!
//! Invariant (protocol.I1): no decoder panics on any input, and none allocates by a length it has
//! not compared with the bytes at hand or with a limit of [`limits`].

pub mod batch;
pub mod body;
pub mod code;
pub mod ext;
pub mod fields;
pub mod flags;
pub mod frame;
pub mod half;
pub mod header;
pub mod ids;
pub mod java;
pub mod limits;
pub mod message;
pub mod names;
pub mod origin;
pub mod parked;
pub mod popped;
pub mod properties;
pub mod recall;
pub mod subscription;

pub use bytes;

/// A topic's, group's or broker's name: cheap to clone, shared between threads.
pub type Name = std::sync::Arc<str>;
