//! Earlier sends of the same message, where more is known of them than the stored message says.
//!
//! A stored message names the connection that its first attempt came by. If a retry got its place since, it is the
//! retry's client that has to know of it; and of an attempt that was stored late this node knows when it came. Both are
//! rare. What is known here is of this node's own leadership: it is forgotten with it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::window::Prints;
use crate::proposal::PROMPT;

/// Attempts remembered, in each of two generations.
const GENERATION_MAX: usize = 8_192;

/// An attempt that a repeat is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Earlier {
    /// The client's end of the connection it came by.
    pub(crate) client: SocketAddr,
    /// Which one of the connection's sends it was.
    pub(crate) number: Option<u64>,
    /// It came then or later, or what it shares a place with did, where that is known.
    pub(crate) after: Option<Instant>,
    /// It had come by then.
    pub(crate) by: Instant,
    /// Its client may have given it up: it is under way, or was answered later than [`PROMPT`] after it came.
    pub(crate) late: bool,
    /// When its client made it, by its own clock.
    pub(crate) born_ms: i64,
}

/// An attempt whose answer took long.
#[derive(Debug, Clone, Copy)]
struct Late {
    came: Instant,
    answered: Instant,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Attempts {
    young: Prints<Earlier>,
    old: Prints<Earlier>,
    /// By the first one of a message that is stored.
    late: Prints<Late>,
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

    /// The first attempt came then and was answered late, now.
    pub(crate) fn note_late(&mut self, print: u64, came: Instant, answered: Instant) {
        if self.late.len() >= GENERATION_MAX {
            self.late.clear();
        }
        self.late.insert(print, Late { came, answered });
    }

    /// Whether a send came while the first attempt was waited for longer than a client may: it is its retry, whatever other
    /// retries were answered since.
    pub(crate) fn waited(&self, print: u64, arrived: Instant) -> bool {
        let late = self.late.get(&print);
        late.is_some_and(|late| late.came + PROMPT <= arrived && arrived <= late.answered)
    }

    /// A new message under this fingerprint is under way.
    pub(crate) fn forget(&mut self, print: u64) {
        if !self.late.is_empty() {
            self.late.remove(&print);
        }
        if !self.young.is_empty() || !self.old.is_empty() {
            self.young.remove(&print);
            self.old.remove(&print);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
        self.late.clear();
    }
}
