//! One nemesis, one cluster, all workloads: break, wait, heal, wait for an acknowledgement, again;
//! then read everything everywhere and judge.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

use super::{NemesisReport, Plan};
use crate::checker::replicas::LogFiles;
use crate::checker::{self, Finding, Rules};
use crate::client::Client;
use crate::cluster::{Cluster, Options, READY_TIMEOUT, ports_are_free};
use crate::edn;
use crate::history::{Fault, Recorder};
use crate::needs::Needs;
use crate::nemesis::{Dice, Nemesis};
use crate::payload::mix;
use crate::reader;
use crate::reading::Reading;
use crate::terms::Terms;
use crate::workload::{Kind, Shape, Site, Workload};

/// How long nodes may take to have dropped the same old segments: they look once a minute.
const RETENTION_LIMIT: Duration = Duration::from_secs(75);
/// Nodes of the cluster.
pub(super) const NODES: u64 = 3;
/// How long a topic may take to be creatable after the start.
const CREATE_TRIES: u32 = 100;
/// How long ports of the cluster before may stay taken.
const PORTS_LIMIT: Duration = Duration::from_secs(20);
/// How long a fault lasts, ms.
const FAULT_MS: std::ops::Range<u64> = 1_000..6_000;
/// How long the cluster is left alone after it, ms.
const QUIET_MS: std::ops::Range<u64> = 1_000..3_000;

/// Runs it from an empty folder to its report.
///
/// # Errors
/// When the cluster cannot even be started: then nothing was proven either way.
pub(super) async fn run(
    plan: &Plan,
    nemesis: &mut dyn Nemesis,
    length: Duration,
    dir: &Path,
) -> Result<NemesisReport> {
    let seed = nemesis.name().bytes().fold(plan.seed, |seed, byte| mix(seed ^ u64::from(byte)));
    let (base_port, needs, network) = (plan.base_port, nemesis.needs(), plan.network.clone());
    if network.has_relays() {
        free_ports(base_port).await;
    }
    let options = Options { base_port, size: NODES, expire: needs.retention, needs, network };
    let mut cluster = Cluster::start(dir, &plan.binary, &options)?;
    // Nobody else's message is ever taken for one of this run's.
    let run = mix(seed ^ std::process::id() as u64);
    let shape = |kind: &Kind| {
        let shape = kind.shape(run, length);
        Shape { expire: shape.expire || needs.retention, ..shape }
    };
    let shapes: Vec<(Kind, Shape)> = plan.workloads.iter().map(|kind| (*kind, shape(kind))).collect();
    create_topics(&mut cluster, &shapes).await.context("prepare the cluster")?;
    let (name_servers, brokers, old_reads) = (cluster.name_servers(), cluster.brokers(), needs.old_reads);
    let site = Site { name_servers, brokers, seed, old_reads, clocks_jump: needs.clock };
    let clock = Instant::now();
    let mut workloads = Vec::new();
    for (kind, shape) in shapes {
        let path = dir.join(format!("{}.jsonl", kind.name()));
        let recorder = Arc::new(Recorder::create_at(&path, clock)?);
        workloads.push(Workload::start(kind, shape, &site, recorder));
    }
    let (dice, terms) = (Dice::new(seed), Terms::default());
    let (expires, outran) = (needs.retention, needs.retention && needs.ext4);
    let mut hunt = Hunt {
        cluster,
        workloads,
        dice,
        recoveries_ms: Vec::new(),
        faults: 0,
        terms,
        expires,
        outran,
        needs,
    };
    let broken = hunt.break_it(nemesis, length).await;
    let mut findings = Vec::new();
    if let Err(error) = broken {
        findings.push(stuck(&error));
        // What is still broken would hide what was lost.
        if let Err(error) = nemesis.heal(&mut hunt.cluster).await {
            findings.push(stuck(&error));
        }
    }
    if let Err(error) = nemesis.finish(&mut hunt.cluster).await {
        findings.push(stuck(&error.context("bring the cluster to where it is judged")));
    }
    hunt.terms.look(&hunt.cluster).await;
    // Dead nodes drop nothing any more.
    if needs.retention && hunt.cluster.check_alive().is_ok() {
        hunt.quiet().await;
        same_beginnings(&hunt.cluster).await;
    }
    hunt.judge(plan, nemesis.name(), dir, findings).await
}

/// Waits until all logs begin at the same position, or as long as it may take nodes to drop what the others dropped:
/// the checkers say what is missing then.
async fn same_beginnings(cluster: &Cluster) {
    let until = Instant::now() + RETENTION_LIMIT;
    while Instant::now() < until {
        let starts = cluster.running().map(|node| {
            let files = LogFiles::open(format!("node {}", node.id), &node.commitlog().ok()?).ok()?;
            Some(files.start())
        });
        let starts: BTreeSet<Option<u64>> = starts.collect();
        if starts.len() == 1 && !starts.contains(&None) {
            return;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Waits for what the nemesis before has left to close; a port still taken then is another cluster's.
async fn free_ports(base_port: u16) {
    let until = Instant::now() + PORTS_LIMIT;
    while !ports_are_free(base_port, NODES) && Instant::now() < until {
        sleep(Duration::from_millis(100)).await;
    }
}

fn stuck(error: &anyhow::Error) -> Finding {
    let mut stuck = Finding::fatal("stuck");
    stuck.add(|| format!("{error:#}"));
    stuck
}

fn unreadable(error: &anyhow::Error) -> Finding {
    let mut unreadable = Finding::fatal("unreadable");
    unreadable.add(|| format!("{error:#}"));
    unreadable
}

async fn create_topics(cluster: &mut Cluster, shapes: &[(Kind, Shape)]) -> Result<()> {
    let client = Client::new(cluster.name_servers(), "jepsen-setup");
    let leader = cluster.leader().await?;
    let broker = cluster.node(leader)?.addresses.broker.clone();
    let topics =
        |shape: &Shape| (0..shape.topics).filter(|topic| !shape.is_groups(*topic)).collect::<Vec<_>>();
    let topics =
        shapes.iter().flat_map(|(_, shape)| topics(shape).into_iter().map(move |topic| (shape, topic)));
    for (shape, topic) in topics {
        let topic = shape.topic(topic);
        let mut tries = 0;
        while let Err(error) = client.create_topic(&broker, &topic, shape.queues).await {
            tries += 1;
            if tries > CREATE_TRIES {
                return Err(error);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    has_all_features(cluster).await?;
    cluster.caught_up().await
}

/// Waits until the group uses all that its nodes' builds support: before, what is delayed is refused, and a retry comes at once.
async fn has_all_features(cluster: &mut Cluster) -> Result<()> {
    let until = Instant::now() + READY_TIMEOUT;
    loop {
        let statuses = cluster.statuses().await;
        if statuses
            .iter()
            .any(|status| status.is_leader() && status.feature_level == status.feature_level_max)
        {
            return Ok(());
        }
        ensure!(Instant::now() < until, "the feature level stays: {statuses:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// A cluster with workloads on it, while a nemesis breaks it.
struct Hunt {
    cluster: Cluster,
    workloads: Vec<Workload>,
    dice: Dice,
    recoveries_ms: Vec<u64>,
    faults: u64,
    terms: Terms,
    expires: bool,
    outran: bool,
    needs: Needs,
}

impl Hunt {
    async fn break_it(&mut self, nemesis: &mut dyn Nemesis, length: Duration) -> Result<()> {
        let started = Instant::now();
        self.acknowledged_since(0).await.context("before any fault")?;
        self.terms.look(&self.cluster).await;
        loop {
            let target = *self.dice.one_of(nemesis.targets()).context("a nemesis without targets")?;
            let nodes = target.pick(&mut self.cluster, &mut self.dice).await?;
            self.note(&format!("{} at {} {nodes:?} begins", nemesis.name(), target.name()), true);
            let fault = nemesis.inject(&mut self.cluster, &nodes, &mut self.dice).await;
            let fault = fault.with_context(|| format!("{} at {nodes:?}", nemesis.name()))?;
            self.faults += 1;
            self.note(&fault.to_string(), false);
            tracing::info!(nemesis = nemesis.name(), target = target.name(), %fault, "injected");
            sleep(self.dice.millis(FAULT_MS.start, FAULT_MS.end)).await;
            let healed_us = self.now_us();
            self.note("heal", false);
            nemesis.heal(&mut self.cluster).await.context("heal")?;
            let acked_us = self.acknowledged_since(healed_us).await.with_context(|| fault.to_string())?;
            self.note(Fault::OVER, false);
            self.recoveries_ms.push(acked_us.saturating_sub(healed_us) / 1000);
            self.terms.look(&self.cluster).await;
            if started.elapsed() >= length {
                return Ok(());
            }
            sleep(self.dice.millis(QUIET_MS.start, QUIET_MS.end)).await;
        }
    }

    /// Stops all writers.
    async fn quiet(&mut self) {
        for workload in &mut self.workloads {
            workload.quiet().await;
        }
    }

    fn note(&self, fault: &str, stops_writes: bool) {
        self.workloads.iter().for_each(|workload| workload.recorder.fault(fault, stops_writes));
    }

    fn now_us(&self) -> u64 {
        self.workloads.first().map_or(0, |workload| workload.recorder.now_us())
    }

    /// Waits for an acknowledged send that began after this moment; says when it was.
    async fn acknowledged_since(&mut self, at_us: u64) -> Result<u64> {
        loop {
            let acked =
                self.workloads.iter().filter_map(|workload| workload.recorder.acked_after(at_us)).min();
            if let Some(acked) = acked {
                return Ok(acked);
            }
            self.cluster.check_alive()?;
            let waited = Duration::from_micros(self.now_us().saturating_sub(at_us));
            ensure!(
                waited < READY_TIMEOUT,
                "no write was acknowledged for {waited:?}; statuses: {:?}",
                self.cluster.statuses().await
            );
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn judge(
        mut self,
        plan: &Plan,
        nemesis: &str,
        dir: &Path,
        mut findings: Vec<Finding>,
    ) -> Result<NemesisReport> {
        let lasted = Duration::from_micros(self.now_us());
        self.quiet().await;
        if let Err(error) = self.cluster.settled().await {
            findings.push(stuck(&error));
        }
        for workload in &mut self.workloads {
            workload.drain().await?;
        }
        let mut report = NemesisReport::new(nemesis, plan.seed, lasted, self.faults, &self.recoveries_ms);
        report.terms = self.terms.passed();
        let mut read_end = Some(0);
        for workload in &self.workloads {
            let history = workload.recorder.finish()?;
            let replicas = match read_replicas(&mut self.cluster, &workload.shape).await {
                Ok(replicas) => replicas,
                Err(error) => {
                    findings.push(unreadable(&error.context(workload.kind.name())));
                    Vec::new()
                }
            };
            let end = replicas.iter().map(Reading::log_end).max();
            read_end = read_end.zip(end).map(|(a, b): (u64, u64)| a.max(b));
            let (expires, outran, clocks_jump) = (self.expires, self.outran, self.needs.clock);
            let rules = Rules { expires, outran, clocks_jump, ..workload.kind.rules() };
            let found = checker::check_all(&history, &replicas, rules);
            if workload.kind.is_kafka_log() && (plan.keep || found.iter().any(Finding::fails)) {
                edn::write(&dir.join(format!("{}.edn", workload.kind.name())), &history, &replicas)?;
            }
            report.add_workload(workload.kind, &history, found);
        }
        if let Some(read_end) = read_end {
            match self.cluster.compare_logs(read_end).await {
                Ok((finding, end)) => {
                    findings.push(finding);
                    report.replica_bytes = end;
                }
                Err(error) => findings.push(unreadable(&error.context("compare the log files"))),
            }
        }
        findings.push(self.cluster.health());
        report.finish(findings);
        Ok(report)
    }
}

/// Reads every queue on every running node, once all of them rest.
async fn read_replicas(cluster: &mut Cluster, shape: &Shape) -> Result<Vec<Reading>> {
    cluster.settled().await?;
    let client = Arc::new(Client::new(Vec::new(), format!("{}-checker", shape.name)));
    let mut readings = Vec::new();
    for node in cluster.running() {
        let reader = format!("node {}", node.id);
        readings.push(reader::read_to_end(&client, &node.addresses.broker, &reader, shape).await?);
    }
    Ok(readings)
}
