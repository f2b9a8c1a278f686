//! What is counted while a load runs. Only what happens within the measured window counts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use folio_protocol::code::ResponseCode;
use hdrhistogram::Histogram;

/// Latencies are kept to three digits, up to ten minutes.
const LATENCY_MAX_US: u64 = 600_000_000;
const LATENCY_DIGITS: u8 = 3;

/// The counters of one load.
pub(super) struct Tally {
    /// When counting begins and ends.
    pub(super) from: Instant,
    pub(super) to: Instant,
    pub(super) acked: u64,
    pub(super) bytes: u64,
    /// Failed requests by the name of what failed.
    pub(super) errors: BTreeMap<String, u64>,
    /// What the server said to the first of each kind.
    pub(super) remarks: BTreeMap<String, String>,
    /// µs.
    pub(super) latency: Histogram<u64>,
    last_ack: Instant,
    gap_max: Duration,
    ended: Option<Instant>,
}

impl Tally {
    /// Counts from one instant to another.
    pub(super) fn new(from: Instant, to: Instant) -> Result<Self> {
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX_US, LATENCY_DIGITS);
        Ok(Self {
            from,
            to,
            acked: 0,
            bytes: 0,
            errors: BTreeMap::new(),
            remarks: BTreeMap::new(),
            latency: latency.context("cannot make a histogram")?,
            last_ack: from,
            gap_max: Duration::ZERO,
            ended: None,
        })
    }

    fn counts(&self, now: Instant) -> bool {
        (self.from..=self.to).contains(&now)
    }

    /// A request that was due at `due` was answered: so many messages and bytes.
    pub(super) fn acked(&mut self, now: Instant, due: Instant, messages: u64, bytes: u64) {
        self.answered(now, due);
        self.counted(now, messages, bytes);
    }

    /// The same, and its messages are counted later.
    pub(super) fn answered(&mut self, now: Instant, due: Instant) {
        if self.counts(now) {
            self.latency.saturating_record(u64::try_from((now - due).as_micros()).unwrap_or(u64::MAX).max(1));
        }
    }

    /// Messages are done whose latency was taken before.
    pub(super) fn counted(&mut self, now: Instant, messages: u64, bytes: u64) {
        if !self.counts(now) {
            return;
        }
        self.acked += messages;
        self.bytes += bytes;
        self.gap_max = self.gap_max.max(now.saturating_duration_since(self.last_ack));
        self.last_ack = now;
    }

    /// A request was answered with an error.
    pub(super) fn refused(&mut self, now: Instant, code: i32, remark: impl FnOnce() -> Option<String>) {
        let known = ResponseCode::from_code(code);
        let name = known.map_or_else(|| format!("CODE_{code}"), |code| code.name().to_owned());
        if !self.remarks.contains_key(&name)
            && let Some(remark) = remark()
        {
            self.remarks.insert(name.clone(), remark);
        }
        self.failed(now, &name, 1);
    }

    /// Requests failed for a reason of ours.
    pub(super) fn failed(&mut self, now: Instant, name: &str, count: usize) {
        if count > 0 && self.counts(now) {
            *self.errors.entry(name.to_owned()).or_default() += count as u64;
        }
    }

    /// Notes what was said about a failure that has no answer.
    pub(super) fn note(&mut self, name: &str, remark: String) {
        self.remarks.entry(name.to_owned()).or_insert(remark);
    }

    /// The load is over; a stall that lasts until then is a gap too.
    pub(super) fn end(&mut self, now: Instant) {
        let end = now.min(self.to);
        self.gap_max = self.gap_max.max(end.saturating_duration_since(self.last_ack));
        self.ended = Some(end);
    }

    /// How long was measured.
    pub(super) fn measured(&self, now: Instant) -> Duration {
        self.ended.unwrap_or(now.min(self.to)).saturating_duration_since(self.from)
    }

    /// The longest time without an acknowledgement.
    pub(super) fn gap_max(&self) -> Duration {
        self.gap_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn only_the_window_counts_and_the_longest_silence_is_kept() {
        let from = Instant::now();
        let mut tally = Tally::new(from, from + 1_000 * MS).unwrap();
        tally.acked(from - MS, from - MS, 1, 10);
        tally.acked(from + 100 * MS, from + 90 * MS, 1, 10);
        tally.acked(from + 500 * MS, from + 90 * MS, 1, 10);
        tally.acked(from + 1_001 * MS, from, 1, 10);
        tally.refused(from + 500 * MS, 2, || Some("busy".to_owned()));
        tally.refused(from + 500 * MS, 777, || None);
        tally.failed(from + 2_000 * MS, "TIMEOUT", 3);
        assert_eq!((tally.acked, tally.bytes), (2, 20));
        assert_eq!(tally.errors, BTreeMap::from([("SYSTEM_BUSY".to_owned(), 1), ("CODE_777".to_owned(), 1)]));
        assert_eq!(tally.remarks["SYSTEM_BUSY"], "busy");
        assert_eq!(tally.gap_max(), 400 * MS);
        tally.end(from + 1_500 * MS);
        assert_eq!((tally.gap_max(), tally.measured(from)), (500 * MS, 1_000 * MS));
    }
}
