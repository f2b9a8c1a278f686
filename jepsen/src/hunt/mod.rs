//! Every chosen nemesis under every chosen workload, the time shared out among the nemeses.
//!
//! Each nemesis gets a cluster of its own, started with what it needs; all workloads run on it at
//! the same time. A nemesis this machine has no means for is skipped by name.

mod list;
mod one;
mod plan;
mod planted;
mod report;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

pub use list::Listing;
pub use plan::Plan;
pub use planted::{PlantedPlan, PlantedReport, run as run_planted};
pub use report::{HuntReport, NemesisReport, Skipped};

use crate::nemesis::{self, Nemesis, Skip};
use crate::netns::Namespaces;
use crate::workload::Kind;

/// The workloads of these names; `all` means all.
///
/// # Errors
/// Names what is not known, and what is.
pub fn workloads(names: &str) -> Result<Vec<Kind>> {
    let known = Kind::ALL.map(Kind::name);
    let chosen = choose(names, &known).context("--workload")?;
    Ok(Kind::ALL.into_iter().filter(|kind| chosen.iter().any(|name| name == kind.name())).collect())
}

/// The nemeses of these names; `all` means all.
///
/// # Errors
/// Names what is not known, and what is.
pub fn nemeses(names: &str) -> Result<Vec<String>> {
    let known: Vec<&str> = nemesis::all().iter().map(|nemesis| nemesis.name()).collect();
    choose(names, &known).context("--nemesis")
}

fn choose(names: &str, known: &[&str]) -> Result<Vec<String>> {
    if names == "all" {
        return Ok(known.iter().map(|name| (*name).to_owned()).collect());
    }
    let chosen: Vec<String> = names.split(',').map(|name| name.trim().to_owned()).collect();
    for name in &chosen {
        ensure!(known.contains(&name.as_str()), "{name:?} is none of: all, {}", known.join(", "));
    }
    Ok(chosen)
}

/// Networks for the nodes of a hunt, one cluster after the other.
///
/// # Errors
/// When there can be none here.
pub fn namespaces() -> std::result::Result<Arc<Namespaces>, Skip> {
    let places = one::NODES + 1;
    Namespaces::create(places).map_err(|error| Skip::NoNamespaces(format!("{error:#}")))
}

/// The report of a hunt that cannot be here.
#[must_use]
pub fn skip_all(plan: &Plan, why: &Skip) -> HuntReport {
    let mut report = HuntReport::new(plan);
    for name in &plan.nemeses {
        eprintln!("{name}: skipped: {why}");
        report.skip(name, why);
    }
    report
}

/// Runs the plan; one nemesis that cannot run does not keep the others from it.
pub async fn run(plan: &Plan) -> HuntReport {
    let mut report = HuntReport::new(plan);
    let mut chosen: Vec<Box<dyn Nemesis>> = Vec::new();
    for nemesis in
        nemesis::all().into_iter().filter(|each| plan.nemeses.iter().any(|name| name == each.name()))
    {
        match nemesis::available(&*nemesis, &plan.network) {
            Ok(()) => chosen.push(nemesis),
            Err(why) => {
                eprintln!("{}: skipped: {why}", nemesis.name());
                report.skip(nemesis.name(), &why);
            }
        }
    }
    let share = plan.length / u32::try_from(chosen.len().max(1)).unwrap_or(u32::MAX);
    for mut nemesis in chosen {
        let dir = plan.dir.join(nemesis.name());
        let done = match std::fs::create_dir_all(&dir).context("create a folder") {
            Ok(()) => one::run(plan, nemesis.as_mut(), share, &dir).await,
            Err(error) => Err(error),
        };
        let done = match done {
            Ok(done) => done,
            Err(error) => NemesisReport::failed(nemesis.name(), &error),
        };
        eprintln!("{done}");
        if done.is_clean() && !plan.keep {
            remove(&dir);
        } else if !done.is_clean() {
            eprintln!("  kept for a look: {} (node-*/data, node-*/node.log, *.jsonl, *.edn)", dir.display());
            eprintln!("  again: {}", again(plan, nemesis.name(), share));
        }
        report.add(done);
    }
    report
}

/// The command that does the same to the same cluster.
fn again(plan: &Plan, nemesis: &str, share: Duration) -> String {
    let workloads: Vec<&str> = plan.workloads.iter().map(|kind| kind.name()).collect();
    format!(
        "cargo run --release -p folio-jepsen -- run --network {} --workload {} --nemesis {nemesis} \
         --minutes {:.3} --seed {}",
        plan.network.name(),
        workloads.join(","),
        share.as_secs_f64() / 60.0,
        plan.seed
    )
}

fn remove(dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(dir) {
        eprintln!("cannot remove {}: {error}", dir.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_means_all_and_an_unknown_name_is_refused_with_the_known_ones() {
        assert_eq!(workloads("all").unwrap(), Kind::ALL);
        assert_eq!(workloads("retry, log").unwrap(), [Kind::Log, Kind::Retry]);
        assert!(nemeses("all").unwrap().contains(&"kill".to_owned()));
        let error = format!("{:#}", nemeses("kil").unwrap_err());
        assert!(error.contains("\"kil\"") && error.contains("pause"), "{error}");
    }
}
