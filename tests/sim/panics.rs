//! Panics inside a node's tasks, which tokio would keep to itself: each one ends the run.

use parking_lot::Mutex;

static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// From now on panics are noted, quietly.
pub(crate) fn watch() {
    std::panic::set_hook(Box::new(|panic| {
        SEEN.lock().push(panic.to_string());
    }));
}

/// The first panic since the start.
pub(crate) fn first() -> Option<String> {
    SEEN.lock().first().cloned()
}
