//! One attack after the other: a quiet stretch, the attack, and a look at what it left.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use tokio::time::{sleep, timeout};

use super::attack::Attack;
use super::crew::{self, Crew, raise_open_files};
use super::field::{Field, Setup};
use super::report::{Entry, Report};
use super::site::Site;
use super::verdict::{Bounds, Processors, Seen, judge};
use super::watch::{Used, own_peak_bytes, used, used_since};
use super::{good, verdict};
use crate::payload::mix;

/// How long the good client is alone before each attack.
const QUIET: Duration = Duration::from_secs(3);
/// The same before the first attack on new nodes: their first segments and checkpoints are made.
const WARM_UP: Duration = Duration::from_secs(3);
/// What comes right after an attack counts as its effect for so long.
const AFTERMATH: Duration = Duration::from_secs(1);
/// How long an attack may go on after its time.
const LATE_MAX: Duration = Duration::from_secs(10);

/// What to do.
pub struct Plan {
    /// The binary `folio`.
    pub binary: PathBuf,
    /// Folder for everything the run writes.
    pub dir: PathBuf,
    /// First port.
    pub base_port: u16,
    /// Seed of every random choice.
    pub seed: u64,
    /// The attacks, in their order.
    pub attacks: Vec<Box<dyn Attack>>,
    /// How long each lasts.
    pub length: Duration,
    /// Messages a second of the good client.
    pub rate: u32,
    /// Files that a node may have open.
    pub open_files: u32,
    /// What an attack may cost.
    pub bounds: Bounds,
}

/// Runs the attacks.
///
/// # Errors
/// When the harness itself could not do its work.
pub async fn run(plan: Plan) -> Result<Report> {
    let Plan { binary, dir, base_port, seed, attacks, length, rate, open_files, bounds } = plan;
    // Nodes inherit what is raised here, and are held to less by how they are started.
    raise_open_files()?;
    let setup = Setup { binary, dir, base_port, rate, open_files, run: mix(seed) };
    let mut run = Run {
        crew: Crew::start()?,
        setup,
        bounds,
        length,
        seed,
        field: None,
        started: 0,
        acknowledged: 0,
        lost: 0,
        replicas: Vec::new(),
    };
    let mut entries = Vec::new();
    for attack in attacks {
        let entry = run.one(attack).await?;
        eprintln!("{:<22} {}", entry.attack, if entry.ok { "borne" } else { "BROKEN" });
        for broken in &entry.broken {
            eprintln!("    {broken}");
        }
        entries.push(entry);
    }
    run.end().await;
    let ok = entries.iter().all(|entry| entry.ok) && run.replicas.is_empty();
    Ok(Report {
        seed,
        bounds,
        attacks: entries,
        clusters_lost: run.lost,
        acknowledged: run.acknowledged,
        replicas: run.replicas,
        own_peak_mib: own_peak_bytes() >> 20,
        ok,
    })
}

struct Run {
    crew: Crew,
    setup: Setup,
    bounds: Bounds,
    length: Duration,
    seed: u64,
    field: Option<Field>,
    started: u64,
    acknowledged: u64,
    lost: u64,
    replicas: Vec<String>,
}

impl Run {
    async fn one(&mut self, attack: Box<dyn Attack>) -> Result<Entry> {
        let mut field = match self.field.take() {
            Some(field) => field,
            None => {
                self.started += 1;
                let field = Field::start(&self.setup, self.started).await?;
                sleep(WARM_UP).await;
                field
            }
        };
        let (name, about, floor) = (attack.name(), attack.about(), attack.floor());
        let seen = self.attack(&mut field, attack).await?;
        let broken = judge(&seen, &floor, &self.bounds);
        if is_lost(&seen) {
            self.lost += 1;
            // Dropping the nodes kills them.
            let (_, acknowledged) = field.good.stop(Duration::ZERO).await;
            self.acknowledged += acknowledged;
        } else {
            self.field = Some(field);
        }
        Ok(Entry { attack: name, about, ok: broken.is_empty(), broken, seen })
    }

    async fn attack(&mut self, field: &mut Field, attack: Box<dyn Attack>) -> Result<verdict::Seen> {
        drop((field.good.take(), field.watch.take()));
        sleep(QUIET).await;
        let (quiet, before) = (field.good.take(), field.read());
        let leader_before = field.leader_in_time().await;
        let (addresses, leader) = field.addresses(leader_before.map_or(0, |(leader, _)| leader));
        let site = Site::new(addresses, leader, good::TOPIC, self.length, self.seed);
        drop((field.good.take(), field.watch.take()));
        let (nodes_before, own_before) = (field.used(), used(std::process::id()));
        let begun = std::time::Instant::now();
        let failed = self.make(attack, &site).await;
        let seconds = begun.elapsed().as_secs_f64();
        let used = processors(&nodes_before, field.used(), &own_before);
        sleep(AFTERMATH).await;
        let (during, peaks) = (field.good.take(), field.watch.take());
        let leader_after = field.leader_in_time().await;
        let nodes = field.nodes(&before, &peaks, &self.bounds).await;
        let missing = field.missing().await;
        let mut fresh = Vec::new();
        if leader_after.is_some() {
            fresh = field.fresh().await;
        }
        Ok(Seen {
            done: site.tally().done(),
            seconds,
            quiet,
            during,
            stall_ms: peaks.stall.as_secs_f64() * 1000.0,
            leader_before,
            leader_after,
            used,
            nodes,
            crashes: field.crashes(),
            missing,
            fresh,
            failed,
        })
    }

    /// Makes the attack; why it failed, if it did.
    async fn make(&self, attack: Box<dyn Attack>, site: &Site) -> Option<String> {
        let (site, late) = (site.clone(), self.length + LATE_MAX);
        let made = self.crew.run(async move { timeout(late, attack.run(&site)).await }).await;
        match made {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(error))) => Some(format!("{error:#}")),
            Ok(Err(_)) => Some("it did not end in time".to_owned()),
            Err(error) => Some(format!("{error:#}")),
        }
    }

    /// Ends the last nodes, and compares their logs.
    async fn end(&mut self) {
        let Some(field) = self.field.take() else { return };
        match field.end().await {
            Ok((missing, acknowledged, differences)) => {
                self.acknowledged += acknowledged;
                self.replicas.extend(differences);
                if missing > 0 {
                    self.replicas.push(format!("{missing} acknowledged messages did not come back"));
                }
            }
            Err(error) => self.replicas.push(format!("{error:#}")),
        }
    }
}

/// What was used since.
fn processors(nodes_before: &[Used], nodes: Vec<Used>, own_before: &Used) -> Processors {
    let own = used_since(own_before, used(std::process::id()));
    let attackers = own.get(crew::THREAD_NAME).copied().unwrap_or(0);
    let nodes = nodes_before.iter().zip(nodes).map(|(before, now)| used_since(before, now));
    Processors { nodes: nodes.collect(), attackers, harness: own.values().sum::<u64>() - attackers }
}

/// Whether the nodes are of no use for another attack.
fn is_lost(seen: &Seen) -> bool {
    !seen.crashes.is_empty() || seen.leader_after.is_none() || !seen.fresh.is_empty() || seen.missing > 0
}
