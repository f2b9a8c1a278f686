//! Simulated time: milliseconds since the run began, moved by the world, read by everybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Wall clocks start here, so that one that is set back does not reach the epoch.
const WALL_START: Duration = Duration::from_secs(1_700_000_000);

/// The clock of the world; a clone reads the same time.
#[derive(Clone, Default)]
pub(crate) struct Clock(Arc<AtomicU64>);

impl Clock {
    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn tick(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// One machine's wall clock, which may be wrong and may jump.
#[derive(Clone, Default)]
pub(crate) struct WallClock {
    clock: Clock,
    skew_ms: Arc<AtomicI64>,
}

impl WallClock {
    pub(crate) fn new(clock: &Clock) -> WallClock {
        WallClock { clock: clock.clone(), skew_ms: Arc::default() }
    }

    pub(crate) fn set_skew(&self, ms: i64) {
        self.skew_ms.store(ms, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> Duration {
        let right = WALL_START.as_millis() as i64 + self.clock.now() as i64;
        Duration::from_millis((right + self.skew_ms.load(Ordering::Relaxed)) as u64)
    }
}
