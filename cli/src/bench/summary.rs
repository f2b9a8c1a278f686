//! What a load came to, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::time::Instant;

use serde::Serialize;

use super::tally::Tally;

/// MB are 10^6 bytes.
const MEGABYTE: f64 = 1e6;

/// The figures of a load. Its JSON form is what `--json` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Summary {
    /// `send`, `pull` or `pop`.
    pub(super) load: &'static str,
    /// What was sent, as in `--kind`; none for a load that reads.
    pub(super) kind: Option<&'static str>,
    /// How popped messages were acknowledged, as in `--acks`; none for other loads.
    pub(super) acks: Option<&'static str>,
    pub(super) topic: String,
    /// Messages acknowledged, or received. Of a load of pops: messages whose acknowledgement the server accepted.
    pub(super) acked: u64,
    pub(super) errors: BTreeMap<String, u64>,
    /// What the server said to the first error of each kind.
    pub(super) remarks: BTreeMap<String, String>,
    pub(super) msgs_per_s: f64,
    pub(super) mb_per_s: f64,
    /// Of requests: a pull or a pop answered with messages is one; acknowledgements are none.
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
    pub(super) max_ms: f64,
    /// What the server says about when it acknowledges.
    pub(super) durability: String,
    /// Measured.
    pub(super) seconds: f64,
    /// Bytes of a body; for a pull or a pop, of a stored message on average.
    pub(super) size: u64,
    pub(super) outstanding: usize,
    /// Messages a second that were asked for; none in a closed loop.
    pub(super) rate: Option<f64>,
    /// The longest time without an acknowledgement.
    pub(super) gap_ms_max: f64,
    /// Requests without an answer when the time was up.
    pub(super) unanswered: usize,
}

/// What was asked for, and what is not counted message by message.
pub(super) struct Frame {
    pub(super) load: &'static str,
    pub(super) kind: Option<&'static str>,
    pub(super) acks: Option<&'static str>,
    pub(super) topic: String,
    pub(super) size: Option<u64>,
    pub(super) outstanding: usize,
    pub(super) rate: Option<f64>,
    pub(super) durability: String,
    pub(super) unanswered: usize,
}

impl Summary {
    pub(super) fn new(frame: Frame, tally: &Tally) -> Self {
        let seconds = tally.measured(Instant::now()).as_secs_f64();
        let per_second = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
        let at = |quantile| thousandths(tally.latency.value_at_quantile(quantile) as f64);
        Self {
            load: frame.load,
            kind: frame.kind,
            acks: frame.acks,
            topic: frame.topic,
            acked: tally.acked,
            errors: tally.errors.clone(),
            remarks: tally.remarks.clone(),
            msgs_per_s: tenths(per_second(tally.acked as f64)),
            mb_per_s: hundredths(per_second(tally.bytes as f64 / MEGABYTE)),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: thousandths(tally.latency.max() as f64),
            durability: frame.durability,
            seconds: thousandths(seconds * 1e3),
            size: frame.size.unwrap_or_else(|| tally.bytes.checked_div(tally.acked).unwrap_or(0)),
            outstanding: frame.outstanding,
            rate: frame.rate,
            gap_ms_max: thousandths(tally.gap_max().as_micros() as f64),
            unanswered: frame.unanswered,
        }
    }
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// A thousandth of the number, to three digits: µs as ms.
fn thousandths(number: f64) -> f64 {
    number.round() / 1e3
}

impl Display for Summary {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let done = if self.load == "pull" { "received" } else { "acknowledged" };
        writeln!(out, "{:<13} {} in {:.1} s", done, self.acked, self.seconds)?;
        writeln!(out, "{:<13} {:.0} messages/s, {:.1} MB/s", "throughput", self.msgs_per_s, self.mb_per_s)?;
        let (p50, p99, p999, max) = (self.p50_ms, self.p99_ms, self.p999_ms, self.max_ms);
        writeln!(out, "{:<13} p50 {p50} ms, p99 {p99} ms, p99.9 {p999} ms, max {max} ms", "latency")?;
        writeln!(out, "{:<13} {} ms", "longest gap", self.gap_ms_max)?;
        let asked = self.rate.map_or(format!("{} in flight", self.outstanding), |rate| {
            format!("{rate} a second, at most {} in flight", self.outstanding)
        });
        let kind = self.kind.map_or(String::new(), |kind| format!(", {kind}"));
        let acks = self.acks.map_or(String::new(), |acks| format!(", --acks {acks}"));
        writeln!(out, "{:<13} {} of {} bytes{kind}{acks}, {asked}", "load", self.load, self.size)?;
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
    use std::time::Duration;

    use super::*;

    fn summary() -> Summary {
        let from = Instant::now() - Duration::from_secs(60);
        let mut tally = Tally::new(from, from + Duration::from_secs(2)).unwrap();
        for number in 1..=1_000 {
            let now = from + Duration::from_millis(number);
            tally.acked(now, now - Duration::from_micros(number * 10), 1, 1_000);
        }
        tally.refused(from, 2, || Some("too much".to_owned()));
        tally.end(Instant::now());
        let frame = Frame {
            load: "send",
            kind: Some("plain"),
            acks: None,
            topic: "t".to_owned(),
            size: Some(1_000),
            outstanding: 64,
            rate: None,
            durability: "unknown".to_owned(),
            unanswered: 0,
        };
        Summary::new(frame, &tally)
    }

    #[test]
    fn figures_follow_from_the_counts() {
        let summary = summary();
        assert_eq!((summary.acked, summary.msgs_per_s, summary.mb_per_s), (1_000, 500.0, 0.5));
        assert_eq!((summary.seconds, summary.gap_ms_max), (2.0, 1_000.0));
        assert!((4.9..5.1).contains(&summary.p50_ms), "{}", summary.p50_ms);
        assert!((9.9..10.1).contains(&summary.max_ms), "{}", summary.max_ms);
        assert_eq!(summary.errors["SYSTEM_BUSY"], 1);
    }

    #[test]
    fn json_has_the_keys_programs_read() {
        let json = serde_json::to_value(summary()).unwrap();
        for key in [
            "kind",
            "acked",
            "errors",
            "msgs_per_s",
            "mb_per_s",
            "p50_ms",
            "p99_ms",
            "p999_ms",
            "max_ms",
            "durability",
            "seconds",
            "size",
            "outstanding",
            "gap_ms_max",
        ] {
            assert!(json.get(key).is_some(), "{key}");
        }
    }

    #[test]
    fn people_read_figures_durability_and_errors_with_the_servers_words() {
        let text = summary().to_string();
        assert!(text.contains("500 messages/s, 0.5 MB/s"), "{text}");
        assert!(text.contains("send of 1000 bytes, plain, 64 in flight"), "{text}");
        assert!(text.contains("durability    unknown"), "{text}");
        assert!(text.ends_with("1 x SYSTEM_BUSY: too much"), "{text}");
    }
}
