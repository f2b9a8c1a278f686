//! What a run says at its end: for people, and as one line of JSON for scripts.

use std::fmt;

use serde::Serialize;

use crate::checker::Finding;
use crate::history::{History, Outcome};

/// How often an idle cluster changed its leader.
#[derive(Debug, Clone, Default, Serialize)]
pub struct LeaderChanges {
    /// Times another node led than before.
    pub changes: u64,
    /// Terms that passed.
    pub terms: u64,
    /// In so many seconds.
    pub seconds: f64,
}

/// The sum of a run. The JSON's keys are part of the command line's contract.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Scenario.
    pub scenario: String,
    /// Seed of its random choices.
    pub seed: u64,
    /// Faults done.
    pub kills: u64,
    /// Sends acknowledged.
    pub acked: u64,
    /// Sends of unknown outcome.
    pub unknown: u64,
    /// Sends refused or never sent.
    pub failed: u64,
    /// Acknowledged sends missing on some replica.
    pub missing: u64,
    /// Messages found that were never sent.
    pub invented: u64,
    /// Refused sends that were found.
    pub resurrected: u64,
    /// Acknowledged sends out of their order.
    pub out_of_order: u64,
    /// Offsets that named two messages.
    pub offset_conflicts: u64,
    /// Acknowledged sends stored twice.
    pub duplicates: u64,
    /// Sends of unknown outcome stored twice: no error.
    pub duplicates_of_unknown: u64,
    /// Holes in the offsets of a queue.
    pub gaps: u64,
    /// Queues that differ between replicas.
    pub disagreements: u64,
    /// Whether the replicas' log files are the same bytes.
    pub replicas_identical: bool,
    /// Bytes of log compared.
    pub replica_bytes: u64,
    /// Kill to the next acknowledged write, median; null when nothing was measured.
    pub gap_ms_median: Option<u64>,
    /// The same, longest.
    pub gap_ms_max: Option<u64>,
    /// Kills after which no write was acknowledged any more.
    pub never_recovered: u64,
    /// Longest time without any acknowledgement in the whole run.
    pub silence_ms_max: u64,
    /// How long the faults and the workload lasted.
    pub seconds: f64,
    /// How often the leader changed, where that is what a scenario looks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader_changes: Option<LeaderChanges>,
    /// Every broken property.
    pub findings: Vec<Finding>,
    /// Whether nothing was broken.
    pub ok: bool,
}

impl Report {
    /// Sums up a run.
    #[must_use]
    pub fn new(scenario: &str, seed: u64, history: &History, findings: Vec<Finding>) -> Self {
        let outcomes =
            |wanted: fn(&Outcome) -> bool| history.ops.iter().filter(|op| wanted(&op.outcome)).count() as u64;
        let count = |name: &str| {
            findings.iter().filter(|finding| finding.name == name).map(|finding| finding.count).sum()
        };
        let duplicates = |fatal: bool| {
            let found = findings.iter().filter(|found| found.name == "duplicate" && found.fatal == fatal);
            found.map(|found| found.count).sum()
        };
        let (gaps, never_recovered) = failover_gaps_ms(history);
        Self {
            scenario: scenario.to_owned(),
            seed,
            kills: history.faults.iter().filter(|fault| fault.stops_writes).count() as u64,
            acked: outcomes(|outcome| matches!(outcome, Outcome::Ok { .. })),
            unknown: outcomes(|outcome| matches!(outcome, Outcome::Unknown { .. })),
            failed: outcomes(|outcome| matches!(outcome, Outcome::Fail { .. })),
            missing: count("lost-write"),
            invented: count("invented"),
            resurrected: count("resurrected"),
            out_of_order: count("out-of-order"),
            offset_conflicts: count("inconsistent-offsets"),
            duplicates: duplicates(true),
            duplicates_of_unknown: duplicates(false),
            gaps: count("offset-gap"),
            disagreements: count("agreement"),
            replicas_identical: count("replicas") == 0,
            replica_bytes: 0,
            gap_ms_median: median(&gaps),
            gap_ms_max: gaps.iter().max().copied(),
            never_recovered,
            silence_ms_max: longest_silence_ms(history),
            seconds: history.ops.iter().map(|op| op.completed_us).max().unwrap_or(0) as f64 / 1e6,
            leader_changes: None,
            ok: never_recovered == 0 && !findings.iter().any(Finding::fails),
            findings: findings.into_iter().filter(|finding| finding.count > 0).collect(),
        }
    }
}

/// For each fault that stops writes: time to the first acknowledgement of a send that began after
/// it. Answers that were already on their way when the process died do not count.
fn failover_gaps_ms(history: &History) -> (Vec<u64>, u64) {
    let mut acked: Vec<(u64, u64)> = history
        .ops
        .iter()
        .filter(|op| matches!(op.outcome, Outcome::Ok { .. }))
        .map(|op| (op.completed_us, op.invoked_us))
        .collect();
    acked.sort_unstable();
    let mut gaps = Vec::new();
    let mut never = 0;
    for fault in history.faults.iter().filter(|fault| fault.stops_writes) {
        let from = acked.partition_point(|(completed, _)| *completed < fault.at_us);
        match acked[from..].iter().find(|(_, invoked)| *invoked >= fault.at_us) {
            Some((completed, _)) => gaps.push((completed - fault.at_us) / 1000),
            None => never += 1,
        }
    }
    (gaps, never)
}

fn longest_silence_ms(history: &History) -> u64 {
    let acked = history.ops.iter().filter(|op| matches!(op.outcome, Outcome::Ok { .. }));
    let mut times: Vec<u64> = acked.map(|op| op.completed_us).collect();
    times.sort_unstable();
    times.windows(2).map(|pair| (pair[1] - pair[0]) / 1000).max().unwrap_or(0)
}

fn median(values: &[u64]) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |value: Option<u64>| value.map_or("-".to_owned(), |ms| format!("{ms} ms"));
        writeln!(
            f,
            "{} (seed {}): {} faults in {:.1} s",
            self.scenario, self.seed, self.kills, self.seconds
        )?;
        writeln!(
            f,
            "  sends      {} acknowledged, {} unknown, {} failed",
            self.acked, self.unknown, self.failed
        )?;
        writeln!(
            f,
            "  failover   median {}, longest {}; longest silence of the run {} ms; {} never recovered",
            ms(self.gap_ms_median),
            ms(self.gap_ms_max),
            self.silence_ms_max,
            self.never_recovered
        )?;
        writeln!(
            f,
            "  messages   {} missing, {} invented, {} resurrected, {} out of order, {} offset conflicts, {} duplicates, {} gaps",
            self.missing,
            self.invented,
            self.resurrected,
            self.out_of_order,
            self.offset_conflicts,
            self.duplicates,
            self.gaps
        )?;
        let identical = if self.replicas_identical { "identical" } else { "DIFFERENT" };
        writeln!(
            f,
            "  replicas   {} disagreements between queues; log files {identical} over {} bytes",
            self.disagreements, self.replica_bytes
        )?;
        if let Some(LeaderChanges { changes, terms, seconds }) = &self.leader_changes {
            writeln!(f, "  leaders    {changes} changes, {terms} terms in {seconds:.0} s")?;
        }
        for finding in &self.findings {
            writeln!(f, "  {}{}: {}", if finding.fatal { "!! " } else { "" }, finding.name, finding.count)?;
            for example in &finding.examples {
                writeln!(f, "       {example}")?;
            }
        }
        write!(f, "  {}", if self.ok { "OK" } else { "FAILED" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Fault, Op};
    use crate::payload::OpKey;

    fn acked(seq: u64, invoked_us: u64, completed_us: u64) -> Op {
        let key = OpKey { topic: 0, queue: 0, producer: 0, seq };
        Op { key, invoked_us, completed_us, resent: 0, outcome: Outcome::Ok { offset: seq, position: None } }
    }

    fn kill(at_us: u64) -> Fault {
        Fault { at_us, fault: "kill".to_owned(), stops_writes: true }
    }

    #[test]
    fn the_gap_runs_from_the_kill_to_a_send_begun_after_it() {
        let ops = vec![acked(0, 0, 1_000), acked(1, 9_000, 12_000), acked(2, 11_000, 260_000)];
        let history = History { ops, faults: vec![kill(10_000)], ..History::default() };
        let report = Report::new("kill-leader", 1, &history, Vec::new());
        assert_eq!(report.gap_ms_max, Some(250));
        assert_eq!(report.silence_ms_max, 248);
        assert!(report.ok);
    }

    #[test]
    fn a_kill_without_any_later_acknowledgement_fails_the_run() {
        let history =
            History { ops: vec![acked(0, 0, 1_000)], faults: vec![kill(10_000)], ..History::default() };
        let report = Report::new("kill-leader", 1, &history, Vec::new());
        assert_eq!(report.never_recovered, 1);
        assert!(!report.ok);
    }

    #[test]
    fn a_fatal_finding_fails_the_run_and_a_counted_one_does_not() {
        let mut finding = Finding::counted("duplicate");
        finding.add(|| "one".to_owned());
        let report = Report::new("x", 1, &History::default(), vec![finding.clone()]);
        assert!(report.ok);
        finding.fatal = true;
        let report = Report::new("x", 1, &History::default(), vec![finding]);
        assert!(!report.ok && report.to_string().ends_with("FAILED"));
    }
}
