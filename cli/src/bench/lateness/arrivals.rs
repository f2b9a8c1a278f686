//! Delayed messages as they become visible: how late each one is, in memory that does not grow with their number.
//!
//! A message is late against its due time by the server's clock, which is the clock of this machine: the property
//! `TIMER_OUT_MS` that a delivery adds. The server counts a delay from when it takes the message, so a slow send makes no
//! message late. A due time that is before what the producer asked for is not believed: the later one counts.

use anyhow::{Context, Result};
use folio_protocol::message::{MessageView, Messages};
use folio_protocol::properties::TIMER_OUT_MS;
use hdrhistogram::Histogram;

/// Names the run that a message belongs to: a topic may have delayed messages of other runs.
pub(crate) const RUN: &str = "FOLIO_BENCH_RUN";
/// Lateness is kept to three digits, up to ten minutes.
const LATE_US_MAX: u64 = 600_000_000;
const LATE_DIGITS: u8 = 3;

/// What the producer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Delivery so many ms after the message was made.
    After(u64),
    /// Delivery at this time, ms since the epoch.
    At(u64),
}

/// The messages of one run that were seen.
pub(crate) struct Arrivals {
    run: String,
    wish: Wish,
    /// µs.
    pub(super) late: Histogram<u64>,
    pub(super) seen: u64,
    /// Seen before they were due.
    pub(super) early: u64,
    /// When the last one was seen, µs since the epoch.
    pub(super) last_us: u64,
}

impl Arrivals {
    /// None yet.
    pub(super) fn new(run: &str, wish: Wish) -> Result<Self> {
        let late = Histogram::new_with_bounds(1, LATE_US_MAX, LATE_DIGITS);
        Ok(Self {
            run: run.to_owned(),
            wish,
            late: late.context("cannot make a histogram")?,
            seen: 0,
            early: 0,
            last_us: 0,
        })
    }

    /// Takes the messages in the body of a pull's answer that came at `now_us`, µs since the epoch.
    pub(crate) fn take(&mut self, body: &[u8], now_us: u64) {
        for (_, message) in Messages::new(body).flatten() {
            if message.property(RUN) == Some(&*self.run) {
                self.one(&message, now_us);
            }
        }
    }

    fn one(&mut self, message: &MessageView<'_>, now_us: u64) {
        let wished_ms = match self.wish {
            Wish::At(ms) => ms,
            Wish::After(ms) => u64::try_from(message.born_timestamp()).unwrap_or(0).saturating_add(ms),
        };
        let told_ms = message.property(TIMER_OUT_MS).and_then(|text| text.parse().ok()).unwrap_or(0);
        let due_us = wished_ms.max(told_ms).saturating_mul(1_000);
        self.seen += 1;
        self.early += u64::from(now_us < due_us);
        self.late.saturating_record(now_us.saturating_sub(due_us).max(1));
        self.last_us = now_us;
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::bench::kind::pair;
    use crate::bench::testing::stored;

    fn message(born_ms: i64, properties: String) -> Vec<u8> {
        stored(0, born_ms, properties)
    }

    fn of(run: &str, due_ms: Option<u64>) -> String {
        pair(RUN, run) + &due_ms.map_or(String::new(), |due| pair(TIMER_OUT_MS, &due.to_string()))
    }

    #[test]
    fn a_message_is_late_against_its_due_time_and_those_of_other_runs_are_passed_over() {
        let mut arrivals = Arrivals::new("a", Wish::After(100)).unwrap();
        let body =
            [message(900, of("a", Some(1_002))), message(900, of("b", Some(1))), message(900, String::new())];
        arrivals.take(&body.concat(), 1_005_500);
        assert_eq!((arrivals.seen, arrivals.early, arrivals.last_us), (1, 0, 1_005_500));
        assert!((3_500..3_510).contains(&arrivals.late.max()), "{}", arrivals.late.max());
    }

    #[test]
    fn a_message_that_is_seen_before_either_due_time_is_early() {
        let mut arrivals = Arrivals::new("a", Wish::After(100)).unwrap();
        arrivals.take(&message(900, of("a", Some(1_002))), 1_001_999);
        assert_eq!((arrivals.seen, arrivals.early), (1, 1));
        arrivals.take(&message(900, of("a", Some(990))), 999_999);
        assert_eq!((arrivals.seen, arrivals.early), (2, 2));
        arrivals.take(&message(900, of("a", None)), 1_000_000);
        assert_eq!((arrivals.seen, arrivals.early), (3, 2));
        let mut arrivals = Arrivals::new("a", Wish::At(1_000)).unwrap();
        arrivals.take(&message(1, of("a", None)), 999_999);
        assert_eq!((arrivals.seen, arrivals.early), (1, 1));
    }
}
