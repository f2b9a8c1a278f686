//! Remoting over TCP: listeners, connections, channels.
//!
//! Not here: what a request means. Everything above sees [`Channel`]s and the calls of [`Service`].
//!
//! Invariants
//! - net.I1: a connection is closed for exactly one reason, and that reason is logged at most once.
//! - net.I2: what a peer sends can close its own connection and no other.
//! - net.I3: no queue towards a peer holds more than [`NetConfig::outgoing_bytes_max`] bytes and one answer, nor all of them
//!   together more than the share `answers` and what each may have without it; the client that does not read for the longest
//!   is closed then, or where all read, the one for which the most waits.
//! - net.I4: a node that stops answers every request it has taken, and closes a connection only after the
//!   answers have left; what it does not take any more it refuses.
//! - net.I5, net.I6: how much a connection may have in flight: `in_flight.rs`.
//! - net.I7: what a connection's read buffer may hold: `read_buffer.rs`.
//! - net.I8: a client that takes no byte for [`NetConfig::write_timeout`], while some wait for it, is closed.
//! - net.I9: an operator of this machine reaches the node however many connections clients hold: `connections.rs`.
//! - net.I10: a guest, told that there are too many connections, is closed soon: `guest.rs`.
//! - budget.I1, client_parts.I1, frames.I1, frames.I2, disk_reads.I1, descriptors.I1: see `budget.rs`, `parts.rs`, `frames.rs`,
//!   `broker/src/reads.rs`, `descriptors.rs`.

mod addresses;
mod budget;
mod channel;
mod client;
mod close;
mod config;
mod connection;
mod connections;
pub mod descriptors;
mod frames;
mod guest;
mod in_flight;
mod listener;
mod machine;
mod outgoing;
mod parts;
mod read_buffer;
mod reading;
mod resources;
mod share;

pub use budget::{Budget, Taken};
pub(crate) use budget::{MEMORY_BYTES_MAX, MEMORY_BYTES_MIN};
pub use channel::{CallFailure, Channel, Unanswered};
pub use close::CloseReason;
pub use config::NetConfig;
pub use listener::Listener;
pub use resources::Resources;
pub(crate) use resources::Usage;
pub use share::Share;

use folio_protocol::frame::Frame;

/// Who the connections of a listener talk to.
pub(crate) trait Service: Send + Sync + 'static {
    /// A request came in. Called on the connection's task: it must not block.
    fn request(&self, channel: &Channel, frame: Frame);
    /// Whether only an operator asks this: served even when there are too many connections (net.I9).
    fn is_operators(&self, _frame: &Frame) -> bool {
        false
    }

    /// The connection is gone; nothing will be read from it or written to it any more.
    fn closed(&self, channel: &Channel);
}
