//! Panics inside a node's tasks, which tokio would keep to itself: each one ends the run.

use std::backtrace::Backtrace;

use parking_lot::Mutex;

static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// From now on panics are noted, quietly; with `RUST_BACKTRACE` set, with the way to them.
pub(crate) fn watch() {
    std::panic::set_hook(Box::new(|panic| {
        SEEN.lock().push(format!("{panic}\n{}", Backtrace::capture()));
    }));
}

/// The first panic since the start.
pub(crate) fn first() -> Option<String> {
    SEEN.lock().first().cloned()
}
