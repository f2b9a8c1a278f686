//! The lease clock: time that passes alike for all leaders, whatever their wall clocks say.
//!
//! A leader stamps its reading on each request for locks; the stamp is replicated. Every node goes on from the latest
//! stamp that it has applied, with its own monotonic clock, which neither jumps nor runs apart by much. A new leader so
//! continues where the old one's stamps ended. What passed between a stamp and its being applied here is not counted: the
//! clock may fall behind at a change of leader, by that and the time without requests, and locks then live longer.
//!
//! Invariant `lease_clock.I1`: a reading is at most an earlier stamp plus the time that has really passed since it was
//! stamped; on one node it never goes back.

use parking_lot::Mutex;
use tokio::time::Instant;

/// See the module.
#[derive(Debug)]
pub(crate) struct LeaseClock(Mutex<Reading>);

#[derive(Debug, Clone, Copy)]
struct Reading {
    ms: u64,
    at: Instant,
}

impl Reading {
    fn now_ms(self) -> u64 {
        self.ms.saturating_add(self.at.elapsed().as_millis() as u64)
    }
}

impl LeaseClock {
    /// Goes on from the latest stamp that is applied.
    pub(crate) fn new(stamp_ms: u64) -> LeaseClock {
        LeaseClock(Mutex::new(Reading { ms: stamp_ms, at: Instant::now() }))
    }

    /// The reading now, milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        self.0.lock().now_ms()
    }

    /// A stamp was applied: one that is ahead was made by a leader that counted more of the time that has passed.
    pub(crate) fn note(&self, stamp_ms: u64) {
        let mut reading = self.0.lock();
        if stamp_ms > reading.now_ms() {
            *reading = Reading { ms: stamp_ms, at: Instant::now() };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn i1_it_counts_what_passes_and_takes_over_what_is_ahead() {
        let clock = LeaseClock::new(1_000);
        tokio::time::advance(Duration::from_millis(500)).await;
        clock.note(1_400);
        assert_eq!(clock.now_ms(), 1_500, "it does not go back");
        clock.note(9_000);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(clock.now_ms(), 9_001);
    }
}
