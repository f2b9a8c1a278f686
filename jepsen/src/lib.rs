//! Drives a real cluster as a black box, breaks it and checks what it promised.
//!
//! It shares the wire's frames with the product and nothing else: three `folio node` processes,
//! their ports, their data folders and `kill -9` are all it has. A scenario breaks something while
//! a workload runs; the history says what clients were told; readings say what is there; the
//! checkers compare. It is not a benchmark, and a run that finds nothing proves nothing; it only
//! looked hard.

pub mod addresses;
pub mod admin;
pub mod binary;
pub mod checker;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod connection;
pub mod edn;
pub mod ext4;
pub mod growth;
pub mod history;
pub mod hostile;
pub mod hunt;
pub mod lossy;
pub mod needs;
pub mod nemesis;
pub mod netns;
pub mod network;
pub mod node;
pub mod payload;
pub mod ports;
mod queue_key;
pub mod reader;
pub mod reading;
pub mod relay;
pub mod report;
pub mod scenario;
pub mod status;
pub mod stored;
pub mod terms;
pub mod workload;
