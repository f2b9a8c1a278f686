//! What happened in a run, as one number: two runs of a seed must end with the same one.
//!
//! With `FOLIO_SIM_TRACE` set the events that a person can follow are printed too.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock::Clock;

/// The hash of everything that happened; a clone adds to the same.
#[derive(Clone)]
pub(crate) struct Trace {
    clock: Clock,
    hash: Arc<Mutex<DefaultHasher>>,
    print: bool,
}

impl Trace {
    pub(crate) fn new(clock: &Clock) -> Trace {
        let print = std::env::var_os("FOLIO_SIM_TRACE").is_some();
        Trace { clock: clock.clone(), hash: Arc::default(), print }
    }

    /// Something small and frequent.
    pub(crate) fn note(&self, event: impl Hash) {
        (self.clock.now(), event).hash(&mut *self.hash.lock());
    }

    /// Something worth reading.
    pub(crate) fn event(&self, text: impl Into<String>) {
        let text = text.into();
        if self.print {
            println!("{:>6} ms  {text}", self.clock.now());
        }
        self.note(text);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash.lock().finish()
    }
}
