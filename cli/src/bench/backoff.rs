//! How a connection whose requests are refused waits, so that a busy server is not kept busy with refusing.

use std::time::{Duration, Instant};

/// The first pause; each refusal during or after a pause doubles it.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// The longest pause: a load has to notice soon that the server takes requests again.
const PAUSE_MAX: Duration = Duration::from_millis(64);

/// When a connection may send again.
pub(super) struct Backoff {
    pause: Duration,
    until: Instant,
}

impl Backoff {
    pub(super) fn new(now: Instant) -> Self {
        Self { pause: PAUSE_MIN, until: now }
    }

    /// Whether nothing may be sent now.
    pub(super) fn holds(&self, now: Instant) -> bool {
        now < self.until
    }

    /// When the pause ends.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Something was refused. What else of the same burst is refused during the pause lengthens nothing.
    pub(super) fn refused(&mut self, now: Instant) {
        if !self.holds(now) {
            self.until = now + self.pause;
            self.pause = PAUSE_MAX.min(self.pause * 2);
        }
    }

    /// Answers came and none was a refusal.
    pub(super) fn accepted(&mut self) {
        self.pause = PAUSE_MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_after_a_pause_doubles_the_next_up_to_a_limit() {
        let mut now = Instant::now();
        let mut backoff = Backoff::new(now);
        assert!(!backoff.holds(now));
        for expected in [1, 2, 4, 8, 16, 32, 64, 64] {
            backoff.refused(now);
            backoff.refused(now);
            assert_eq!(backoff.until() - now, Duration::from_millis(expected));
            now = backoff.until();
            assert!(!backoff.holds(now));
        }
        backoff.accepted();
        backoff.refused(now);
        assert_eq!(backoff.until() - now, PAUSE_MIN);
    }
}
