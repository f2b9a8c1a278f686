//! Remoting over TCP: listeners, connections, channels.
//!
//! Not here: what a request means. Everything above sees [`Channel`]s and the calls of [`Service`].
//!
//! Invariants
//! - net.I1: a connection is closed for exactly one reason, and that reason is logged at most once.
//! - net.I2: what a peer sends can close its own connection and no other.
//! - net.I3: no queue towards a peer holds more than [`NetConfig::outgoing_bytes_max`] bytes.
//! - net.I4: a node that stops answers every request it has taken, and closes a connection only after the
//!   answers have left; what it does not take any more it refuses.

mod channel;
mod close;
mod connection;
mod listener;
mod outgoing;

pub use channel::{CallFailure, Channel, Unanswered};
pub use close::CloseReason;
pub use listener::{Listener, NetConfig};

use folio_protocol::frame::Frame;

/// Who the connections of a listener talk to.
pub trait Service: Send + Sync + 'static {
    /// A request came in. Called on the connection's task: it must not block.
    fn request(&self, channel: &Channel, frame: Frame);
    /// The connection is gone; nothing will be read from it or written to it any more.
    fn closed(&self, channel: &Channel);
}
