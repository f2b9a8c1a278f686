//! Locks by name, in which changes of one topic or group take turns.

use std::hash::{DefaultHasher, Hash, Hasher};

use tokio::sync::{Mutex, MutexGuard};

/// Names that share a turn wait for each other: few do.
const TURNS: usize = 64;

/// One change of a name at a time.
pub(crate) struct NameLocks([Mutex<()>; TURNS]);

impl Default for NameLocks {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(())))
    }
}

impl NameLocks {
    /// Waits for the turn of this name.
    pub(crate) async fn of(&self, name: &str) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        self.0[hasher.finish() as usize % TURNS].lock().await
    }
}
