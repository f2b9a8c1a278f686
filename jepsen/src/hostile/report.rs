//! What a run says: a table for people, JSON for scripts.

use std::fmt;

use serde::Serialize;

use super::verdict::{Bounds, Seen};

/// One attack and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// Its name.
    pub attack: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Whether it was made and borne.
    pub ok: bool,
    /// Every bound that was broken.
    pub broken: Vec<String>,
    /// What was seen.
    pub seen: Seen,
}

/// A whole run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Seed of every random choice.
    pub seed: u64,
    /// The bounds.
    pub bounds: Bounds,
    /// The attacks, in their order.
    pub attacks: Vec<Entry>,
    /// Clusters that had to be replaced by a new one, since an attack had broken it.
    pub clusters_lost: u64,
    /// Messages of the good client that were acknowledged.
    pub acknowledged: u64,
    /// Whether the replicas' log files were the same at the end.
    pub replicas: Vec<String>,
    /// The most memory that the harness itself took.
    pub own_peak_mib: u64,
    /// Whether everything was borne.
    pub ok: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "hostile (seed {}): {} attacks", self.seed, self.attacks.len())?;
        writeln!(
            f,
            "  {:<22} {:>9} {:>9} {:>7} {:>7} {:>7} {:>6} {:>9}  verdict",
            "attack", "p50 ms", "p99 ms", "gap ms", "frames", "MiB max", "conns", "cpu %"
        )?;
        for entry in &self.attacks {
            entry.row(f)?;
        }
        for line in &self.replicas {
            writeln!(f, "  !! {line}")?;
        }
        writeln!(
            f,
            "  {} good messages acknowledged; {} clusters lost; the harness took {} MiB",
            self.acknowledged, self.clusters_lost, self.own_peak_mib
        )?;
        write!(f, "  {}", if self.ok { "OK" } else { "FAILED" })
    }
}

impl Entry {
    fn row(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = &self.seen;
        let (sends, quiet) = (&seen.during.sends, &seen.quiet.sends);
        // Of one processor.
        let percent = |ms: u64| ms as f64 / 10.0 / seen.seconds.max(0.1);
        let peak = seen.nodes.iter().map(|node| node.peak_bytes >> 20).max().unwrap_or(0);
        writeln!(
            f,
            "  {:<22} {:>4.1}/{:<4.1} {:>4.0}/{:<4.0} {:>7.0} {:>7} {:>7} {:>6} {:>4.0}/{:<4.0}  {}",
            self.attack,
            sends.p50_ms,
            quiet.p50_ms,
            sends.p99_ms,
            quiet.p99_ms,
            sends.gap_ms,
            seen.done.frames,
            peak,
            seen.done.opened,
            percent(seen.used.of_nodes()),
            percent(seen.used.attackers),
            if self.ok { "borne" } else { "BROKEN" }
        )?;
        for broken in &self.broken {
            writeln!(f, "      !! {broken}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_bound_is_told_below_its_attack() {
        let entry = |ok, broken| Entry { attack: "x", about: "y", ok, broken, seen: Seen::default() };
        let mut report = Report {
            seed: 1,
            bounds: Bounds::strict(),
            attacks: vec![entry(true, Vec::new()), entry(false, vec!["no leader afterwards".to_owned()])],
            clusters_lost: 0,
            acknowledged: 1,
            replicas: Vec::new(),
            own_peak_mib: 1,
            ok: false,
        };
        let text = report.to_string();
        assert!(text.contains("!! no leader afterwards") && text.ends_with("FAILED"), "{text}");
        report.attacks.pop();
        report.ok = true;
        assert!(report.to_string().ends_with("OK"));
        assert!(serde_json::to_string(&report).is_ok_and(|json| json.contains("\"p99_ms\"")));
    }
}
