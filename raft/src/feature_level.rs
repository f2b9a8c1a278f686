//! The group's feature level, as this node has applied it, for those that must not wait for the state's lock.
//!
//! What a level is says `folio_state::sections::features`; who raises it, `group::upgrade`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use folio_state::FIRST_LEVEL;

/// The level; a copy is of the same one.
#[derive(Debug, Clone)]
pub(crate) struct GroupLevel(Arc<AtomicU16>);

impl Default for GroupLevel {
    /// Of a node that has applied nothing.
    fn default() -> GroupLevel {
        GroupLevel::new(FIRST_LEVEL)
    }
}

impl GroupLevel {
    pub(crate) fn new(level: u16) -> GroupLevel {
        GroupLevel(Arc::new(AtomicU16::new(level)))
    }

    pub(crate) fn get(&self) -> u16 {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, level: u16) {
        self.0.store(level, Ordering::Release);
    }
}
