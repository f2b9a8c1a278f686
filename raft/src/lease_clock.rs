//! The lease clock: time that passes alike for all leaders, whatever their wall clocks say.
//!
//! A leader stamps its reading on each request for locks; the stamp is replicated. Every node goes on from the latest
//! stamp that it has applied, with its own monotonic clock, which neither jumps nor runs apart by much. A new leader so
//! continues where the old one's stamps ended. What passed between a stamp and its being applied here is not counted: the
//! clock falls behind at a change of leader, by that and by the time of the change, and locks then live longer.
//!
//! A leader's own stamps lie on its own line of readings, so applying them changes nothing. Each other stamp begins a new
//! line, also where it is behind the old one: a node that counted more of the time before it would else take that off the
//! life of a lock stamped after it.
//!
//! Invariant `lease_clock.I1`: a stamp is at most the stamp before it in the log plus the time that has really passed between
//! the two. A leader stamps in a term in which it has applied all entries of earlier terms, and its request enters the log in
//! that term or not at all.

use parking_lot::Mutex;
use tokio::time::Instant;

/// See the module.
#[derive(Debug)]
pub(crate) struct LeaseClock(Mutex<Line>);

/// Readings that go on from one stamp.
#[derive(Debug)]
struct Line {
    ms: u64,
    at: Instant,
    /// The last term in which this process stamped by it: all stamps of that term are its own.
    term: Option<u64>,
}

impl Line {
    fn now_ms(&self) -> u64 {
        self.ms.saturating_add(self.at.elapsed().as_millis() as u64)
    }
}

impl LeaseClock {
    /// Goes on from the latest stamp that is applied.
    pub(crate) fn new(stamp_ms: u64) -> LeaseClock {
        LeaseClock(Mutex::new(Line { ms: stamp_ms, at: Instant::now(), term: None }))
    }

    /// The reading now, milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        self.0.lock().now_ms()
    }

    /// A stamp for a request in a term that this node leads, and whose earlier terms it has applied.
    pub(crate) fn stamp_ms(&self, term: u64) -> u64 {
        let mut line = self.0.lock();
        line.term = Some(term);
        line.now_ms()
    }

    /// A stamp of this term was applied.
    pub(crate) fn note(&self, stamp_ms: u64, term: u64) {
        let mut line = self.0.lock();
        if line.term != Some(term) {
            *line = Line { ms: stamp_ms, at: Instant::now(), term: None };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn pass(ms: u64) {
        tokio::time::advance(Duration::from_millis(ms)).await;
    }

    /// Three nodes, of which the second applies late and the third in time.
    #[tokio::test(start_paused = true)]
    async fn i1_a_stamp_is_never_further_from_the_one_before_than_time_has_passed() {
        let clocks = [LeaseClock::new(0), LeaseClock::new(0), LeaseClock::new(0)];
        pass(1_000).await;
        let first = clocks[0].stamp_ms(1);
        clocks[0].note(first, 1);
        clocks[2].note(first, 1);
        pass(400).await;
        assert_eq!(clocks[0].now_ms(), 1_400, "its own stamps cost it nothing");
        // The second leads: what it has not counted is lost.
        clocks[1].note(first, 1);
        let second = clocks[1].stamp_ms(2);
        assert_eq!((first, second), (1_000, 1_000));
        for clock in &clocks {
            clock.note(second, 2);
        }
        pass(1_100).await;
        // The third has counted the 400 ms before the second stamp, too: they are not taken off what was stamped then.
        assert_eq!(clocks[2].stamp_ms(3), second + 1_100);
    }
}
