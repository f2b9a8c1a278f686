//! What a run of the load generator found.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use folio_protocol::code::ResponseCode;
use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies are kept from 1 µs to 2 minutes, to three digits.
const LATENCY_US_MAX: u64 = 120_000_000;

/// Counts of one connection, or of all.
pub(super) struct Counts {
    latency_us: Histogram<u64>,
    pub(super) acked: u64,
    pub(super) bytes: u64,
    pub(super) errors: BTreeMap<String, u64>,
    /// Longest time between two acknowledgements, and when the last one was.
    gap: Duration,
    last_ack: Option<Instant>,
}

impl Counts {
    pub(super) fn new() -> Counts {
        let latency_us = match Histogram::new_with_bounds(1, LATENCY_US_MAX, 3) {
            Ok(histogram) => histogram,
            Err(error) => unreachable!("the bounds are constants that fit: {error}"),
        };
        Counts {
            latency_us,
            acked: 0,
            bytes: 0,
            errors: BTreeMap::new(),
            gap: Duration::ZERO,
            last_ack: None,
        }
    }

    /// `messages` acknowledged or received by one answer at `now`.
    pub(super) fn ack(&mut self, messages: u64, bytes: u64, latency: Duration, now: Instant) {
        self.acked += messages;
        self.bytes += bytes;
        self.latency_us.saturating_record((latency.as_micros() as u64).max(1));
        if let Some(last) = self.last_ack {
            self.gap = self.gap.max(now.duration_since(last));
        }
        self.last_ack = Some(now);
    }

    pub(super) fn error(&mut self, code: i32) {
        let name = ResponseCode::from_code(code)
            .map_or_else(|| format!("CODE_{code}"), |code| code.name().to_owned());
        *self.errors.entry(name).or_default() += 1;
    }

    pub(super) fn broken(&mut self, outstanding: u64) {
        if outstanding > 0 {
            *self.errors.entry("CONNECTION_BROKEN".to_owned()).or_default() += outstanding;
        }
    }

    /// From `start` to the last acknowledgement.
    pub(super) fn busy_since(&self, start: Instant) -> Duration {
        self.last_ack.map_or(Duration::ZERO, |last| last.saturating_duration_since(start))
    }

    pub(super) fn add(&mut self, other: &Counts) {
        self.acked += other.acked;
        self.bytes += other.bytes;
        self.gap = self.gap.max(other.gap);
        self.last_ack = self.last_ack.max(other.last_ack);
        for (name, count) in &other.errors {
            *self.errors.entry(name.clone()).or_default() += count;
        }
        if let Err(error) = self.latency_us.add(&other.latency_us) {
            unreachable!("both histograms have the same bounds: {error}");
        }
    }
}

/// The result of one run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `send` or `pull`.
    pub what: &'static str,
    /// Messages acknowledged, or received.
    pub acked: u64,
    /// Requests that failed, by response code.
    pub errors: BTreeMap<String, u64>,
    /// Messages a second.
    pub msgs_per_s: f64,
    /// Body megabytes (10^6) a second; for pull, stored bytes.
    pub mb_per_s: f64,
    /// Latency of a request, milliseconds.
    pub p50_ms: f64,
    /// See `p50_ms`.
    pub p99_ms: f64,
    /// See `p50_ms`.
    pub p999_ms: f64,
    /// See `p50_ms`.
    pub max_ms: f64,
    /// Longest time that one connection had no acknowledgement, milliseconds.
    pub gap_ms_max: f64,
    /// What an acknowledgement means on this server.
    pub durability: String,
    /// Bytes of a body.
    pub size: usize,
    /// Requests outstanding.
    pub outstanding: usize,
    /// Connections.
    pub connections: usize,
    /// How long was measured.
    pub seconds: f64,
}

impl Report {
    pub(super) fn new(
        what: &'static str,
        bench: &super::Bench,
        counts: &Counts,
        durability: String,
    ) -> Report {
        // A thousandth at least: nothing was measured to be that short, and nothing is divided by zero.
        let seconds = bench.duration.as_secs_f64().max(0.001);
        let quantile = |q: f64| counts.latency_us.value_at_quantile(q) as f64 / 1000.0;
        Report {
            what,
            acked: counts.acked,
            errors: counts.errors.clone(),
            msgs_per_s: counts.acked as f64 / seconds,
            mb_per_s: counts.bytes as f64 / seconds / 1e6,
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            max_ms: counts.latency_us.max() as f64 / 1000.0,
            gap_ms_max: counts.gap.as_secs_f64() * 1000.0,
            durability,
            size: bench.size,
            outstanding: bench.outstanding,
            connections: bench.connections,
            seconds,
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verb = if self.what == "send" { "acknowledged" } else { "received" };
        writeln!(
            f,
            "{} messages {verb} in {:.1} s: {:.0} a second, {:.1} MB/s",
            self.acked, self.seconds, self.msgs_per_s, self.mb_per_s
        )?;
        writeln!(
            f,
            "latency of a request: p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, longest {:.2} ms",
            self.p50_ms, self.p99_ms, self.p999_ms, self.max_ms
        )?;
        writeln!(
            f,
            "{} outstanding on {} connections, {} bytes a body",
            self.outstanding, self.connections, self.size
        )?;
        write!(f, "an acknowledgement means: {}", self.durability)?;
        for (name, count) in &self.errors {
            write!(f, "\nfailed: {count} x {name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_connections_add_up() {
        let (mut all, mut one) = (Counts::new(), Counts::new());
        let now = Instant::now();
        one.ack(1, 100, Duration::from_millis(2), now);
        one.ack(1, 100, Duration::from_millis(4), now + Duration::from_millis(30));
        one.error(2);
        one.error(-77);
        one.broken(3);
        all.add(&one);
        all.add(&one);
        assert_eq!((all.acked, all.bytes), (4, 400));
        assert_eq!(all.errors["SYSTEM_BUSY"], 2);
        assert_eq!(all.errors["CODE_-77"], 2);
        assert_eq!(all.errors["CONNECTION_BROKEN"], 6);
        assert_eq!(all.gap, Duration::from_millis(30));
        assert_eq!(all.latency_us.max() / 1000, 4);
    }
}
