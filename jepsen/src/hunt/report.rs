//! What a hunt says: per nemesis for people, all of it as one line of JSON for scripts.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::Plan;
use crate::checker::Finding;
use crate::history::{History, How, Outcome};
use crate::workload::Kind;

/// What one workload's clients did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Counts {
    /// Sends acknowledged.
    pub acknowledged: u64,
    /// Sends refused or never sent.
    pub failed: u64,
    /// Sends of unknown outcome.
    pub unknown: u64,
    /// Second and further tries of a send.
    pub resent: u64,
    /// Messages consumers were given, all consumers together.
    pub consumed: u64,
    /// Commits of a group's offset acknowledged.
    pub commits: u64,
    /// Sure answers about a queue's length, and answers about a group's offset.
    pub questions: u64,
}

impl Counts {
    fn of(history: &History) -> Self {
        let sends = |wanted: fn(&Outcome) -> bool| {
            let ops = history.sends().map(|op| &op.outcome);
            // Nobody answers a one-way send: it counts neither way.
            let repeats = history.repeats.iter().filter(|repeat| repeat.how != How::OneWay);
            ops.chain(repeats.map(|repeat| &repeat.outcome)).filter(|outcome| wanted(outcome)).count() as u64
        };
        let resent = history.sends().map(|op| op.resent);
        let resent = resent.chain(history.repeats.iter().map(|repeat| repeat.resent));
        Self {
            acknowledged: sends(|outcome| matches!(outcome, Outcome::Ok { .. })),
            failed: sends(|outcome| matches!(outcome, Outcome::Fail { .. })),
            unknown: sends(|outcome| matches!(outcome, Outcome::Unknown { .. })),
            resent: resent.map(u64::from).sum(),
            consumed: consumed(history),
            commits: history.commits.iter().filter(|commit| commit.acked_us.is_some()).count() as u64,
            questions: (history.ends.len() + history.committed.len()) as u64,
        }
    }

    fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.failed += other.failed;
        self.unknown += other.unknown;
        self.resent += other.resent;
        self.consumed += other.consumed;
        self.commits += other.commits;
        self.questions += other.questions;
    }
}

/// Messages that consumers were given, by pulls and by pops.
fn consumed(history: &History) -> u64 {
    let pulled = history.polls.iter().map(|poll| poll.found.len());
    let popped = history.pops.iter().filter_map(|pop| pop.given.as_ref()).map(Vec::len);
    pulled.chain(popped).sum::<usize>() as u64
}

/// What one nemesis brought to light.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NemesisReport {
    /// Its name.
    pub nemesis: String,
    /// Seed of the run.
    pub seed: u64,
    /// Seconds it lasted, checks apart.
    pub seconds: f64,
    /// Faults injected.
    pub faults: u64,
    /// All workloads together.
    pub total: Counts,
    /// Each workload.
    pub workloads: BTreeMap<&'static str, Counts>,
    /// How often each checker found something; those that found nothing say 0.
    pub anomalies: BTreeMap<&'static str, u64>,
    /// Longest time without any acknowledgement.
    pub gap_ms_max: u64,
    /// From the end of a fault to the next acknowledged send, median.
    pub recovery_ms_median: Option<u64>,
    /// The same, longest.
    pub recovery_ms_max: Option<u64>,
    /// Terms that passed: each began with an election.
    pub terms: u64,
    /// Bytes of log compared on all replicas.
    pub replica_bytes: u64,
    /// Every broken property, with examples.
    pub findings: Vec<Found>,
    /// Why nothing was proven, if the harness could not do its work.
    pub error: Option<String>,
    #[serde(skip)]
    acked_us: Vec<u64>,
}

/// A finding and the workload it belongs to.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// Which workload; none for what concerns the cluster as such.
    pub workload: Option<&'static str>,
    /// What.
    #[serde(flatten)]
    pub finding: Finding,
}

impl NemesisReport {
    /// A run of so many faults, before anything was judged.
    #[must_use]
    pub(super) fn new(
        nemesis: &str,
        seed: u64,
        lasted: Duration,
        faults: u64,
        recoveries_ms: &[u64],
    ) -> Self {
        let mut sorted = recoveries_ms.to_vec();
        sorted.sort_unstable();
        Self {
            nemesis: nemesis.to_owned(),
            seed,
            seconds: lasted.as_secs_f64(),
            faults,
            recovery_ms_median: sorted.get(sorted.len() / 2).copied(),
            recovery_ms_max: sorted.last().copied(),
            ..Self::default()
        }
    }

    /// The harness could not do its work.
    #[must_use]
    pub(super) fn failed(nemesis: &str, error: &anyhow::Error) -> Self {
        Self { nemesis: nemesis.to_owned(), error: Some(format!("{error:#}")), ..Self::default() }
    }

    pub(super) fn add_workload(&mut self, kind: Kind, history: &History, findings: Vec<Finding>) {
        let counts = Counts::of(history);
        self.total.add(&counts);
        self.workloads.insert(kind.name(), counts);
        let acked = history.sends().filter(|op| matches!(op.outcome, Outcome::Ok { .. }));
        self.acked_us.extend(acked.map(|op| op.completed_us));
        self.add_findings(Some(kind.name()), findings);
    }

    pub(super) fn finish(&mut self, findings: Vec<Finding>) {
        self.add_findings(None, findings);
        self.acked_us.sort_unstable();
        self.gap_ms_max = self.acked_us.windows(2).map(|pair| (pair[1] - pair[0]) / 1000).max().unwrap_or(0);
        self.acked_us = Vec::new();
    }

    fn add_findings(&mut self, workload: Option<&'static str>, findings: Vec<Finding>) {
        for finding in findings {
            // What is counted and not judged is no anomaly.
            let count = if finding.fatal { finding.count } else { 0 };
            *self.anomalies.entry(finding.name).or_default() += count;
            if finding.count > 0 {
                self.findings.push(Found { workload, finding });
            }
        }
    }

    /// Whether a promise was broken.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.findings.iter().any(|found| found.finding.fails())
    }

    /// Whether it ran and found nothing.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        !self.is_broken() && self.error.is_none()
    }
}

impl fmt::Display for NemesisReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(error) = &self.error {
            return write!(f, "{}: could not run: {error}", self.nemesis);
        }
        let Counts { acknowledged, unknown, failed, resent, consumed, .. } = self.total;
        writeln!(
            f,
            "{}: {} faults in {:.0} s; {acknowledged} acknowledged, {unknown} unknown, {failed} failed, \
             {resent} sent again, {consumed} consumed",
            self.nemesis, self.faults, self.seconds
        )?;
        write!(f, "  longest gap {} ms", self.gap_ms_max)?;
        if let (Some(median), Some(max)) = (self.recovery_ms_median, self.recovery_ms_max) {
            write!(f, "; healed to acknowledged: median {median} ms, longest {max} ms")?;
        }
        let per_minute = self.terms as f64 * 60.0 / self.seconds.max(1.0);
        write!(f, "; {} changes of term, {per_minute:.1} a minute", self.terms)?;
        write!(f, "; log files compared over {} bytes", self.replica_bytes)?;
        for Found { workload, finding } in &self.findings {
            let mark = if finding.fatal { "!! " } else { "" };
            write!(
                f,
                "\n  {mark}{} in {}: {}",
                finding.name,
                workload.unwrap_or("the cluster"),
                finding.count
            )?;
            for example in &finding.examples {
                write!(f, "\n       {example}")?;
            }
        }
        write!(f, "\n  {}", if self.is_broken() { "FAILED" } else { "OK" })
    }
}

/// A nemesis that could not be used here.
#[derive(Debug, Clone, Serialize)]
pub struct Skipped {
    /// Its name.
    pub nemesis: String,
    /// Why.
    pub why: String,
}

/// The whole hunt.
#[derive(Debug, Clone, Default, Serialize)]
pub struct HuntReport {
    /// Seed of every random choice.
    pub seed: u64,
    /// Minutes asked for.
    pub minutes: f64,
    /// By what links were broken.
    pub network: &'static str,
    /// Workloads that ran, all at once.
    pub workloads: Vec<&'static str>,
    /// Faults injected.
    pub faults: u64,
    /// All nemeses together.
    pub total: Counts,
    /// Anomalies by checker.
    pub anomalies: BTreeMap<&'static str, u64>,
    /// Each nemesis.
    pub nemeses: Vec<NemesisReport>,
    /// Nemeses that could not be used here.
    pub skipped: Vec<Skipped>,
    /// Whether everything ran and nothing was found.
    pub ok: bool,
}

impl HuntReport {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            seed: plan.seed,
            minutes: plan.length.as_secs_f64() / 60.0,
            network: plan.network.name(),
            workloads: plan.workloads.iter().map(|kind| kind.name()).collect(),
            ok: true,
            ..Self::default()
        }
    }

    pub(super) fn skip(&mut self, nemesis: &str, why: &impl fmt::Display) {
        self.skipped.push(Skipped { nemesis: nemesis.to_owned(), why: why.to_string() });
    }

    pub(super) fn add(&mut self, done: NemesisReport) {
        self.ok &= done.is_clean();
        self.faults += done.faults;
        self.total.add(&done.total);
        for (name, count) in &done.anomalies {
            *self.anomalies.entry(name).or_default() += count;
        }
        self.nemeses.push(done);
    }

    /// 0: nothing was found. 1: a promise was broken. 2: something could not run, or nothing did.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.nemeses.iter().any(NemesisReport::is_broken) {
            1
        } else if self.nemeses.is_empty() || self.nemeses.iter().any(|done| done.error.is_some()) {
            2
        } else {
            0
        }
    }
}

impl fmt::Display for HuntReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost = self.anomalies.get("lost-write").copied().unwrap_or(0);
        let found: u64 = self.anomalies.values().sum();
        let Counts { acknowledged, unknown, consumed, .. } = self.total;
        write!(
            f,
            "{} nemeses, {} faults: {acknowledged} acknowledged, {unknown} unknown, {consumed} consumed, \
             {lost} lost, {found} anomalies; {} skipped (seed {})",
            self.nemeses.len(),
            self.faults,
            self.skipped.len(),
            self.seed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(found: &[(&'static str, bool)], error: Option<&str>) -> NemesisReport {
        let mut report = NemesisReport::new("kill", 1, Duration::from_secs(1), 3, &[5, 1, 9]);
        let finding = |(name, fatal): &(&'static str, bool)| {
            let mut finding = if *fatal { Finding::fatal(name) } else { Finding::counted(name) };
            finding.add(|| "one".to_owned());
            finding
        };
        report.finish(found.iter().map(finding).collect());
        report.error = error.map(str::to_owned);
        report
    }

    fn hunt(done: impl IntoIterator<Item = NemesisReport>) -> HuntReport {
        let mut hunt = HuntReport { ok: true, ..HuntReport::default() };
        done.into_iter().for_each(|done| hunt.add(done));
        hunt
    }

    #[test]
    fn the_exit_code_tells_a_broken_promise_from_a_run_that_could_not_be() {
        assert_eq!(hunt([done(&[("duplicate", false)], None)]).exit_code(), 0);
        assert_eq!(hunt([done(&[], None), done(&[("lost-write", true)], None)]).exit_code(), 1);
        assert_eq!(hunt([done(&[], Some("no port")), done(&[], None)]).exit_code(), 2);
        assert_eq!(hunt([]).exit_code(), 2, "nothing ran");
    }

    #[test]
    fn recoveries_are_summed_up_and_anomalies_counted_by_checker() {
        let report = done(&[("lost-write", true), ("duplicate", false)], None);
        assert_eq!((report.recovery_ms_median, report.recovery_ms_max), (Some(5), Some(9)));
        assert_eq!(report.anomalies["lost-write"], 1);
        assert_eq!(report.anomalies["duplicate"], 0, "counted, not judged");
        assert!(report.to_string().ends_with("FAILED"));
    }
}
