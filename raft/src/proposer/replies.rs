//! Who waits for the outcome of a record.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::proposal::{ProposeError, Reply};

/// Who waits for a record's outcome; shared with the record's batch.
pub(super) type Waiters = Arc<Mutex<Replies>>;

/// Who waits for which messages of a record, in order.
#[derive(Default)]
pub(super) struct Replies(pub(super) Vec<(usize, Reply)>);

impl Replies {
    pub(super) fn push(&mut self, messages: usize, reply: Reply) {
        self.0.push((messages, reply));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells all of them the same.
    pub(super) fn refuse(self, error: &ProposeError) {
        self.0.into_iter().for_each(|(_, reply)| reply(Err(error.clone())));
    }
}
