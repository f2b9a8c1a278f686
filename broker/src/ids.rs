//! Numbers that a node makes: unique ids of messages, and what spreads messages over queues.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use folio_protocol::ids::UniqueIds;

use crate::clock::now_ms;

/// See the module.
pub(crate) struct Ids {
    unique_ids: UniqueIds,
    counter: AtomicU32,
}

impl Ids {
    /// Of a process that starts now.
    pub(crate) fn new(host: IpAddr) -> Ids {
        // The tag tells two runs of one process id apart: milliseconds of the start.
        let unique_ids = UniqueIds::new(host, std::process::id(), now_ms() as u32);
        Ids { unique_ids, counter: AtomicU32::new(0) }
    }

    /// A number that differs from call to call: spreads messages over queues.
    pub(crate) fn draw(&self) -> u32 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    /// A unique id for a message whose client made none.
    pub(crate) fn unique_id(&self) -> String {
        self.unique_ids.id(now_ms(), self.draw() as u16)
    }
}
