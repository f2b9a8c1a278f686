//! Earlier sends of the same message, where more is known of them than the stored message says.
//!
//! A stored message names the connection that its first attempt came by. If a retry got its place since, it is the
//! retry's client that has to know of it; and of an attempt that was stored late this node knows when it came. Both are
//! rare. What is known here is of this node's own leadership: it is forgotten with it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::window::Prints;

/// Attempts remembered, in each of two generations.
const GENERATION_MAX: usize = 8_192;

/// An attempt that a repeat is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Earlier {
    /// The client's end of the connection it came by.
    pub(crate) client: SocketAddr,
    /// Which one of the connection's sends it was.
    pub(crate) number: Option<u64>,
    /// It came then or later, where that is known.
    pub(crate) after: Option<Instant>,
    /// It had come by then.
    pub(crate) by: Instant,
    /// When its client made it, by its own clock.
    pub(crate) born_ms: i64,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Attempts {
    young: Prints<Earlier>,
    old: Prints<Earlier>,
}

impl Attempts {
    /// The last attempt that is known for a message, unless it is too old.
    pub(crate) fn find(&self, print: u64, age: Duration, now: Instant) -> Option<Earlier> {
        let found = self.young.get(&print).or_else(|| self.old.get(&print))?;
        (now.saturating_duration_since(found.by) < age).then_some(*found)
    }

    pub(crate) fn note(&mut self, print: u64, earlier: Earlier) {
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(print, earlier);
    }

    /// Notes it unless a later one is known.
    pub(crate) fn note_first(&mut self, print: u64, earlier: Earlier) {
        if !self.young.contains_key(&print) && !self.old.contains_key(&print) {
            self.note(print, earlier);
        }
    }

    /// A new message under this fingerprint is under way.
    pub(crate) fn forget(&mut self, print: u64) {
        if !self.young.is_empty() || !self.old.is_empty() {
            self.young.remove(&print);
            self.old.remove(&print);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}
