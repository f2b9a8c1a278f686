//! What a measurement of lateness came to, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::arrivals::{Arrivals, Wish};
use super::options::LatenessOptions;
use crate::bench::tally::Tally;

/// The figures. Their JSON form is what `--json` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Report {
    /// `lateness`.
    load: &'static str,
    topic: String,
    /// Sends acknowledged.
    sent: u64,
    /// Messages seen.
    seen: u64,
    /// Acknowledged, and not seen. A message whose send failed, but was stored, may hide one.
    missing: u64,
    /// Seen before they were due.
    early: u64,
    /// How long after its due time a message was seen.
    late_p50_ms: f64,
    late_p99_ms: f64,
    late_max_ms: f64,
    /// With `--due-at-once`: messages seen, over the time from the due time to the last one.
    delivered_per_s: Option<f64>,
    /// Latency of the sends.
    send_p50_ms: f64,
    send_p99_ms: f64,
    /// Failed sends by the name of what failed, and failed pulls.
    errors: BTreeMap<String, u64>,
    remarks: BTreeMap<String, String>,
    due_at_once: bool,
    delay_ms: u64,
    /// Messages a second that were asked for; none with `--due-at-once`.
    rate: Option<f64>,
    /// Bytes of a body.
    size: usize,
    durability: String,
}

impl Report {
    pub(super) fn new(
        options: &LatenessOptions,
        durability: String,
        (wish, arrivals): (Wish, &Arrivals),
        (tally, pulled): (&Tally, &Tally),
    ) -> Self {
        let of_pulls = |name: &String| format!("PULL {name}");
        let (mut errors, mut remarks) = (tally.errors.clone(), tally.remarks.clone());
        errors.extend(pulled.errors.iter().map(|(name, count)| (of_pulls(name), *count)));
        remarks.extend(pulled.remarks.iter().map(|(name, remark)| (of_pulls(name), remark.clone())));
        let late = |quantile| ms(arrivals.late.value_at_quantile(quantile));
        let send = |quantile| ms(tally.latency.value_at_quantile(quantile));
        let delivered_per_s = match wish {
            Wish::At(due_ms) => per_second(arrivals.seen, arrivals.last_us.saturating_sub(due_ms * 1_000)),
            Wish::After(_) => None,
        };
        Self {
            load: "lateness",
            topic: options.common.topic.clone(),
            sent: tally.acked,
            seen: arrivals.seen,
            missing: tally.acked.saturating_sub(arrivals.seen),
            early: arrivals.early,
            late_p50_ms: late(0.5),
            late_p99_ms: late(0.99),
            late_max_ms: ms(arrivals.late.max()),
            delivered_per_s,
            send_p50_ms: send(0.5),
            send_p99_ms: send(0.99),
            errors,
            remarks,
            due_at_once: options.due_at_once,
            delay_ms: options.delay_ms,
            rate: (!options.due_at_once).then_some(options.rate),
            size: options.size,
            durability,
        }
    }

    /// Fails where the server did what it must not, or nothing.
    pub(super) fn check(&self) -> Result<()> {
        ensure!(self.seen > 0, "no delayed message was seen");
        ensure!(self.early == 0, "{} messages were seen before they were due", self.early);
        // What a failed send has stored comes, too.
        let taken = self.sent + self.errors.values().sum::<u64>();
        ensure!(self.seen <= taken, "{} messages were seen of {taken}: some came twice", self.seen);
        ensure!(self.missing == 0, "{} messages were not seen in time: see --timeout", self.missing);
        Ok(())
    }
}

/// µs as ms.
fn ms(us: u64) -> f64 {
    us as f64 / 1e3
}

/// None if no time passed.
fn per_second(messages: u64, us: u64) -> Option<f64> {
    (us > 0).then(|| (messages as f64 * 1e7 / us as f64).round() / 10.0)
}

impl Display for Report {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let (sent, seen, missing, early) = (self.sent, self.seen, self.missing, self.early);
        writeln!(out, "{:<13} {seen} of {sent} acknowledged; {missing} missing, {early} early", "seen")?;
        let (p50, p99, max) = (self.late_p50_ms, self.late_p99_ms, self.late_max_ms);
        writeln!(out, "{:<13} p50 {p50} ms, p99 {p99} ms, max {max} ms", "late")?;
        if let Some(rate) = self.delivered_per_s {
            writeln!(out, "{:<13} {rate:.0} messages/s after the due time", "delivery")?;
        }
        writeln!(out, "{:<13} p50 {} ms, p99 {} ms", "sends", self.send_p50_ms, self.send_p99_ms)?;
        let asked = self.rate.map_or("all due at once".to_owned(), |rate| format!("{rate} a second"));
        let (size, delay) = (self.size, self.delay_ms);
        writeln!(out, "{:<13} lateness of {size} bytes, {asked}, delay {delay} ms", "load")?;
        write!(out, "{:<13} {}", "durability", self.durability)?;
        for (name, count) in &self.errors {
            let remark = self.remarks.get(name).map(|remark| format!(": {remark}")).unwrap_or_default();
            write!(out, "\n{:<13} {count} x {name}{remark}", "error")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: LatenessOptions,
    }

    fn report(words: &str, wish: Wish, seen: u64) -> Report {
        let line = ["lateness", "-t", "t"].into_iter().chain(words.split_whitespace());
        let options = Line::try_parse_from(line).unwrap().options;
        let from = Instant::now();
        let mut tally = Tally::new(from, from + Duration::from_secs(9)).unwrap();
        (0..10).for_each(|_| tally.acked(from, from, 1, 10));
        let mut pulled = Tally::new(from, from + Duration::from_secs(9)).unwrap();
        pulled.failed(from, "TIMEOUT", 1);
        let mut arrivals = Arrivals::new("a", wish).unwrap();
        (0..seen).for_each(|_| arrivals.late.record(2_000).unwrap());
        (arrivals.seen, arrivals.last_us) = (seen, 1_500_000);
        Report::new(&options, "unknown".to_owned(), (wish, &arrivals), (&tally, &pulled))
    }

    #[test]
    fn messages_due_at_once_have_a_rate_of_delivery() {
        let report = report("--due-at-once --count 10", Wish::At(1_000), 10);
        assert_eq!((report.delivered_per_s, report.rate, report.missing), (Some(20.0), None, 0));
        assert!(report.check().is_ok());
        let text = report.to_string();
        assert!(text.contains("10 of 10 acknowledged; 0 missing, 0 early"), "{text}");
        assert!(text.ends_with("1 x PULL TIMEOUT"), "{text}");
        assert!(text.contains("20 messages/s after the due time"), "{text}");
    }

    #[test]
    fn missing_and_early_messages_fail() {
        let mut report = report("--rate 5", Wish::After(1_000), 7);
        assert_eq!((report.delivered_per_s, report.rate, report.missing), (None, Some(5.0), 3));
        assert!(report.check().unwrap_err().to_string().starts_with("3 messages were not seen"));
        (report.missing, report.early) = (0, 2);
        assert!(report.check().unwrap_err().to_string().starts_with("2 messages were seen before"));
        report.seen = 0;
        assert!(report.check().is_err());
    }
}
