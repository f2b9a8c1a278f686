//! The wall clock, which is also that of servers on this machine.

use std::time::{SystemTime, UNIX_EPOCH};

/// µs since the epoch.
pub(super) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}
