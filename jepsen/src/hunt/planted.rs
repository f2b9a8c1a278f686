//! The harness hunted: each defect that a binary built with the feature `planted` can have, and whether
//! a checker finds it.
//!
//! The defect's name goes to the nodes in the environment, so each run is a process of its own: this
//! same program, with `run`. Before all others comes a run without a defect, which must find nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

/// The variable that names the defect.
const VARIABLE: &str = "FOLIO_PLANTED";

/// A promise broken on purpose, and what brings it to light.
struct Defect {
    name: &'static str,
    promise: &'static str,
    workload: &'static str,
    /// Tried in turn.
    nemeses: &'static [&'static str],
    /// Whether a client can see it. What none can see is left to the simulation (`tests/sim/planted.rs`), unless it is
    /// asked for by its name.
    visible: bool,
}

/// One for each name in `engine/src/planted.rs`.
const DEFECTS: [Defect; 21] = [
    Defect {
        name: "ack-before-sync",
        promise: "acknowledge after fdatasync",
        workload: "log,linearizable",
        nemeses: &["power-cut"],
        visible: true,
    },
    Defect {
        name: "ack-before-majority",
        promise: "acknowledge after a majority has it",
        workload: "log,linearizable",
        nemeses: &["partition-isolate", "kill"],
        visible: true,
    },
    Defect {
        name: "vote-before-log",
        promise: "vote after the log before it is durable",
        workload: "log,linearizable",
        nemeses: &["power-cut"],
        visible: false,
    },
    Defect {
        name: "serve-unapplied",
        promise: "serve only what is applied",
        workload: "log,linearizable",
        nemeses: &["partition-isolate", "pause"],
        visible: true,
    },
    Defect {
        name: "skip-truncation",
        promise: "cut off what the leader does not have",
        workload: "log,linearizable",
        nemeses: &["partition-isolate", "pause"],
        visible: true,
    },
    Defect {
        name: "forget-undo",
        promise: "give offsets back that a truncation frees",
        workload: "log,linearizable",
        nemeses: &["partition-isolate", "pause"],
        visible: true,
    },
    Defect {
        name: "retry-stores-again",
        promise: "answer a repeated send with the first one's offset",
        workload: "retry",
        nemeses: &["pause", "kill"],
        visible: true,
    },
    Defect {
        name: "locks-by-wall-clock",
        promise: "give an orderly lock to one client at a time",
        workload: "log",
        nemeses: &["pause"],
        visible: false,
    },
    Defect {
        name: "founds-alone",
        promise: "no second group of the same name is founded",
        workload: "log",
        nemeses: &["grow"],
        visible: true,
    },
    Defect {
        name: "purge-poisons",
        promise: "no space for what retention writes is no failed write",
        workload: "log",
        nemeses: &["full-retention"],
        visible: true,
    },
    Defect {
        name: "later-start-leads",
        promise: "a replica that starts later than its peers does not lead",
        workload: "log",
        nemeses: &["rot-snapshot"],
        visible: true,
    },
    Defect {
        name: "repeat-by-key",
        promise: "an object sent again on purpose is stored again",
        workload: "same-object",
        nemeses: &["pause-short", "kill"],
        visible: true,
    },
    Defect {
        name: "deleted-comes-back",
        promise: "a deleted topic's messages are gone",
        workload: "deleted-topic",
        nemeses: &["pause-short", "kill"],
        visible: true,
    },
    Defect {
        name: "moves-again",
        promise: "a message that was sent back is moved once",
        workload: "send-backs",
        nemeses: &["kill", "pause"],
        visible: true,
    },
    Defect {
        name: "stall-is-silence",
        promise: "a node that did not run does not depose its leader",
        workload: "log",
        nemeses: &["pause-short"],
        visible: false,
    },
    Defect {
        name: "fires-again",
        promise: "what was delivered is not delivered again",
        workload: "delays",
        nemeses: &["kill", "pause"],
        visible: true,
    },
    Defect {
        name: "fires-early",
        promise: "no message is delivered before its time",
        workload: "delays",
        nemeses: &["pause-short"],
        visible: true,
    },
    Defect {
        name: "carry-drops",
        promise: "what is pending in a segment that goes is kept",
        workload: "log,delays",
        nemeses: &["rot-snapshot"],
        visible: true,
    },
    Defect {
        name: "recalled-too-soon",
        promise: "acknowledge a recall after it is committed",
        workload: "delays",
        nemeses: &["partition-isolate", "kill"],
        visible: true,
    },
    Defect {
        name: "ended-too-soon",
        promise: "acknowledge an end, or a send-back, after it is committed",
        workload: "transactions,send-backs",
        nemeses: &["partition-isolate", "kill"],
        visible: true,
    },
    Defect {
        name: "popped-ack-lost",
        promise: "acknowledge what was popped after that is committed",
        workload: "pops",
        nemeses: &["partition-isolate", "pause"],
        visible: true,
    },
];

/// How to run it.
#[derive(Debug, Clone)]
pub struct PlantedPlan {
    /// A `folio` built with the feature `planted`.
    pub binary: PathBuf,
    /// Folder for the runs.
    pub dir: PathBuf,
    /// First port.
    pub base_port: u16,
    /// Seed of the first run; each further one has the next.
    pub seed: u64,
    /// Minutes of one run.
    pub minutes: f64,
    /// Runs before a defect counts as not caught.
    pub tries: u64,
    /// Defects by name; empty for all that a client can see.
    pub only: Vec<String>,
}

/// One defect's line of the table.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verdict {
    /// The defect; empty for the run without one.
    pub defect: String,
    /// The promise it breaks.
    pub promise: String,
    /// Nemesis of the last run.
    pub nemesis: String,
    /// Seed of the last run.
    pub seed: u64,
    /// Checkers that found something, and how often.
    pub caught_by: BTreeMap<String, u64>,
    /// Faults injected until then.
    pub faults: u64,
}

/// The table.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PlantedReport {
    /// The run without a defect, and one line for each defect.
    pub verdicts: Vec<Verdict>,
}

/// What is read of a run's report.
#[derive(Deserialize)]
struct Ran {
    faults: u64,
    anomalies: BTreeMap<String, u64>,
}

/// Runs the control and every defect.
///
/// # Errors
/// When a run could not be: then nothing is shown.
pub async fn run(plan: &PlantedPlan) -> Result<PlantedReport> {
    let mut report = PlantedReport::default();
    let control = Defect {
        name: "",
        promise: "none is broken",
        workload: "log,linearizable",
        nemeses: &["pause"],
        visible: true,
    };
    report.verdicts.push(hunt(plan, &control, 1).await?);
    let chosen = |defect: &&Defect| match plan.only.is_empty() {
        true => defect.visible,
        false => plan.only.iter().any(|name| name == defect.name),
    };
    for defect in DEFECTS.iter().filter(chosen) {
        let verdict = hunt(plan, defect, plan.tries).await?;
        eprintln!("{}", line(&verdict));
        report.verdicts.push(verdict);
    }
    Ok(report)
}

async fn hunt(plan: &PlantedPlan, defect: &Defect, tries: u64) -> Result<Verdict> {
    let mut verdict =
        Verdict { defect: defect.name.to_owned(), promise: defect.promise.to_owned(), ..Verdict::default() };
    for (number, nemesis) in (0..tries).zip(defect.nemeses.iter().cycle()) {
        verdict.nemesis = (*nemesis).to_owned();
        verdict.seed = plan.seed + number;
        let ran = once(plan, defect, nemesis, verdict.seed).await?;
        verdict.faults += ran.faults;
        verdict.caught_by = ran.anomalies.into_iter().filter(|(_, count)| *count > 0).collect();
        if !verdict.caught_by.is_empty() {
            break;
        }
    }
    Ok(verdict)
}

async fn once(plan: &PlantedPlan, defect: &Defect, nemesis: &str, seed: u64) -> Result<Ran> {
    let name = if defect.name.is_empty() { "none" } else { defect.name };
    let own = std::env::current_exe().context("find this executable")?;
    let mut command = Command::new(own);
    command.args(["run", "--json", "--workload", defect.workload, "--nemesis", nemesis]);
    command.args(["--minutes", &plan.minutes.to_string(), "--seed", &seed.to_string()]);
    command.args(["--base-port", &plan.base_port.to_string()]);
    command.arg("--folio").arg(&plan.binary).arg("--dir").arg(plan.dir.join(format!("{name}-{seed}")));
    command.env(VARIABLE, defect.name).stdin(Stdio::null()).stderr(Stdio::null());
    let done = command.output().await.context("start a run")?;
    let code = done.status.code();
    anyhow::ensure!(matches!(code, Some(0 | 1)), "the run with {name} under {nemesis} ended with {code:?}");
    serde_json::from_slice(&done.stdout).with_context(|| format!("the report of the run with {name}"))
}

impl PlantedReport {
    /// Whether every defect was caught, and nothing where there is none.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.caught_by.is_empty() == verdict.defect.is_empty())
    }
}

fn line(verdict: &Verdict) -> String {
    let Verdict { defect, promise, nemesis, seed, caught_by, faults } = verdict;
    let caught: Vec<String> = caught_by.iter().map(|(name, count)| format!("{name} ({count})")).collect();
    let caught = if caught.is_empty() { "nothing".to_owned() } else { caught.join(", ") };
    let defect = if defect.is_empty() { "(no defect)" } else { defect };
    format!("| {defect} | {promise} | {nemesis} | {caught} | {faults} | {seed} |")
}

impl fmt::Display for PlantedReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| defect | promise | nemesis | caught by | faults until then | seed |")?;
        write!(f, "|---|---|---|---|---|---|")?;
        self.verdicts.iter().try_for_each(|verdict| write!(f, "\n{}", line(verdict)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(defect: &str, caught: bool) -> Verdict {
        let caught_by = caught.then(|| ("lost-write".to_owned(), 3)).into_iter().collect();
        Verdict { defect: defect.to_owned(), caught_by, ..Verdict::default() }
    }

    #[test]
    fn a_defect_that_is_not_caught_or_a_find_without_one_is_bad() {
        let good = PlantedReport { verdicts: vec![verdict("", false), verdict("forget-undo", true)] };
        assert!(good.is_good());
        assert!(
            !PlantedReport { verdicts: vec![verdict("", false), verdict("forget-undo", false)] }.is_good()
        );
        assert!(!PlantedReport { verdicts: vec![verdict("", true)] }.is_good());
        assert!(good.to_string().contains("lost-write (3)"));
    }

    #[test]
    fn nemeses_and_workloads_that_are_to_find_a_defect_exist() {
        for defect in &DEFECTS {
            super::super::workloads(defect.workload).unwrap();
            defect.nemeses.iter().for_each(|name| drop(super::super::nemeses(name).unwrap()));
        }
    }
}
