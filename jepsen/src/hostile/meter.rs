//! Latencies and gaps of one stretch of time.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;

/// Latencies above this count as this: a client has given up long before.
const LATENCY_US_MAX: u64 = 60_000_000;
/// Significant digits of a latency.
const DIGITS: u8 = 2;

/// What one stretch was like, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Things that were done.
    pub count: u64,
    /// Median of the time each took.
    pub p50_ms: f64,
    /// What one of a hundred exceeded.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// The longest time in which nothing was done, beginning and end of the stretch included.
    pub gap_ms: f64,
}

/// Measures stretch after stretch.
pub(crate) struct Meter(Mutex<Stretch>);

struct Stretch {
    latencies: Histogram<u64>,
    last: Instant,
    gap: Duration,
}

impl Meter {
    /// A meter whose first stretch begins now.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Stretch::begin(Instant::now())))
    }

    /// Something that should have begun at `due` is done now.
    pub(crate) fn done(&self, due: Instant) {
        self.done_at(due, Instant::now());
    }

    fn done_at(&self, due: Instant, now: Instant) {
        let mut stretch = self.0.lock();
        let took = now.saturating_duration_since(due).as_micros() as u64;
        stretch.latencies.saturating_record(took.clamp(1, LATENCY_US_MAX));
        stretch.gap = stretch.gap.max(now.saturating_duration_since(stretch.last));
        stretch.last = stretch.last.max(now);
    }

    /// Ends the stretch, and begins another one.
    #[must_use]
    pub(crate) fn take(&self) -> Figures {
        self.take_at(Instant::now())
    }

    fn take_at(&self, now: Instant) -> Figures {
        let mut stretch = self.0.lock();
        let ended = std::mem::replace(&mut *stretch, Stretch::begin(now));
        let ms = |us: u64| us as f64 / 1000.0;
        let at = |part: f64| ms(ended.latencies.value_at_quantile(part));
        let gap = ended.gap.max(now.saturating_duration_since(ended.last));
        Figures {
            count: ended.latencies.len(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            max_ms: ms(ended.latencies.max()),
            gap_ms: ms(gap.as_micros() as u64),
        }
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self::new()
    }
}

impl Stretch {
    fn begin(now: Instant) -> Self {
        // The bounds are constants of this file.
        let latencies = Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS);
        let latencies = latencies.unwrap_or_else(|error| panic!("meter.I1: a histogram's bounds: {error}"));
        Self { latencies, last: now, gap: Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_tells_its_latencies_and_its_longest_gap() {
        let meter = Meter::new();
        let start = Instant::now();
        let _ = meter.take_at(start);
        let at = |ms| start + Duration::from_millis(ms);
        for ms in (10..1000).step_by(10) {
            meter.done_at(at(ms - 2), at(ms));
        }
        meter.done_at(at(990), at(1490));
        let figures = meter.take_at(at(1500));
        assert_eq!(figures.count, 100);
        assert!((1.9..2.1).contains(&figures.p50_ms), "{figures:?}");
        assert!((495.0..510.0).contains(&figures.max_ms), "{figures:?}");
        assert_eq!(figures.gap_ms, 500.0);
    }

    #[test]
    fn a_stretch_in_which_nothing_was_done_is_one_gap() {
        let meter = Meter::new();
        let start = Instant::now();
        let _ = meter.take_at(start);
        let figures = meter.take_at(start + Duration::from_secs(3));
        assert_eq!((figures.count, figures.gap_ms), (0, 3000.0));
    }
}
