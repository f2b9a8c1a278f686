//! What a broker does, as typed calls with typed results: the services that every front door shares.
//!
//! Not here: frames, request codes, headers and sockets, and bringing a request to the leader. A call that only the leader can
//! serve says so by its error.

pub mod clients;
pub mod connection;
pub mod error;
pub mod identity;
pub mod old_reads;
pub mod polls;
pub mod reads;
pub mod rights;
pub mod sends;
pub mod settings;
pub mod stalls;
pub mod system;
pub mod turns;
