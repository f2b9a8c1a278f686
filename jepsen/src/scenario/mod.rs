//! What is done to the cluster, one scenario a file, and the frame they all run in.

mod chaos;
mod grow;
mod idle_stalls;
mod kill_all;
mod kill_leader;
mod lose_disk;
mod pause_leader;
mod replace_node;
mod retention;
mod rot;
mod split_brain;
mod stale_address;
mod stop_leader;
mod upgrade;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;

use crate::checker::{self, Finding, Rules};
use crate::client::Client;
use crate::cluster::{Cluster, Options};
use crate::history::Recorder;
use crate::nemesis::{Needs, Stalling};
use crate::network::Network;
use crate::payload::mix;
use crate::reader::{self, LiveReader};
use crate::reading::Reading;
use crate::report::{LeaderChanges, Report};
use crate::workload::{Shape, Target, Writers};

/// How long a topic may take to be creatable after the start: elections, first commit.
const CREATE_TRIES: u32 = 100;

/// What to do.
#[derive(Debug, Clone)]
pub enum Scenario {
    /// kill -9 the leader again and again.
    KillLeader {
        /// How often.
        kills: u32,
        /// Mean seconds between two of them.
        seconds_between: f64,
    },
    /// SIGSTOP the leader again and again, longer than an election takes.
    PauseLeader {
        /// How often.
        pauses: u32,
        /// How long each lasts.
        seconds: f64,
    },
    /// kill -9 all nodes at once.
    KillAll {
        /// How often.
        rounds: u32,
        /// Whether derived files are deleted before each restart.
        wipe_derived: bool,
    },
    /// SIGTERM to the leader again and again.
    StopLeader {
        /// How often.
        stops: u32,
    },
    /// Random faults at random nodes.
    Chaos {
        /// How many.
        rounds: u32,
    },
    /// A follower comes back with an empty disk, and the leader dies.
    LoseDisk {
        /// How often.
        rounds: u32,
    },
    /// Old segments expire, then all nodes die.
    Retention,
    /// A flipped bit in a follower's log.
    Rot {
        /// How long the log grows before.
        seconds_before: f64,
    },
    /// An empty node takes the place of a dead one.
    ReplaceNode,
    /// A client knows only the address of a leader that has become a follower.
    StaleAddress,
    /// A cluster born as one node grows, has every member replaced and shrinks.
    Grow {
        /// How often.
        rounds: u32,
    },
    /// The first node of a group that grew loses its disk while the others are down.
    SplitBrain,
    /// Every node gets a build of a later feature level, one after the other.
    Upgrade {
        /// The later build.
        later: PathBuf,
    },
    /// An idle cluster is stalled again and again: how often its leader changes.
    IdleStalls {
        /// For how long.
        seconds: u64,
        /// How long stalls last.
        stalling: Stalling,
    },
}

impl Scenario {
    /// Its name on the command line.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::KillLeader { .. } => "kill-leader",
            Self::PauseLeader { .. } => "pause-leader",
            Self::KillAll { .. } => "kill-all",
            Self::StopLeader { .. } => "stop-leader",
            Self::Chaos { .. } => "chaos",
            Self::LoseDisk { .. } => "lose-disk",
            Self::Retention => "retention",
            Self::Rot { .. } => "rot",
            Self::ReplaceNode => "replace-node",
            Self::StaleAddress => "stale-address",
            Self::Grow { .. } => "grow",
            Self::SplitBrain => "split-brain",
            Self::Upgrade { .. } => "upgrade",
            Self::IdleStalls { .. } => "idle-stalls",
        }
    }

    /// What its cluster must be started with.
    fn needs(&self) -> Needs {
        Needs { alone: matches!(self, Self::Grow { .. } | Self::SplitBrain), ..Needs::default() }
    }

    /// Whether clients write and read meanwhile.
    fn has_load(&self) -> bool {
        !matches!(self, Self::IdleStalls { .. })
    }
}

/// Where and how to run.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The binary `folio`.
    pub binary: PathBuf,
    /// Folder for everything the run writes.
    pub dir: PathBuf,
    /// First port.
    pub base_port: u16,
    /// Seed of every random choice.
    pub seed: u64,
    /// The workload.
    pub shape: Shape,
}

/// A cluster with a workload on it, while a scenario breaks it.
struct Run {
    cluster: Cluster,
    recorder: Arc<Recorder>,
    shape: Shape,
    random: u64,
    extra: Vec<Finding>,
    leader_changes: Option<LeaderChanges>,
}

/// Runs a scenario from an empty folder to its report.
///
/// # Errors
/// When the harness itself could not do its work: then nothing was proven either way.
pub async fn run(setup: &Setup, scenario: &Scenario) -> Result<Report> {
    let options = Options {
        base_port: setup.base_port,
        size: 3,
        expire: setup.shape.expire,
        needs: scenario.needs(),
        network: Network::default(),
    };
    let mut cluster = Cluster::start(&setup.dir, &setup.binary, &options)?;
    create_topics(&mut cluster, &setup.shape).await.context("prepare the cluster")?;
    let recorder = Arc::new(Recorder::create(&setup.dir.join("history.jsonl"))?);
    let (shape, random) = (setup.shape.clone(), mix(setup.seed));
    let mut run = Run { cluster, recorder, shape, random, extra: Vec::new(), leader_changes: None };
    let live = if scenario.has_load() { run.live_readers() } else { Vec::new() };
    let name_servers = run.cluster.name_servers();
    let writers =
        scenario.has_load().then(|| Writers::start(&name_servers, &run.shape, &Target::Route, &run.recorder));
    let broken = run.break_it(scenario).await;
    if let Some(writers) = writers {
        writers.stop().await;
    }
    for reader in live {
        reader.stop().await?;
    }
    // A scenario that could not go on is a finding: the checks below still say what was lost.
    if let Err(error) = broken {
        let mut stuck = Finding::fatal("stuck");
        stuck.add(|| format!("{error:#}"));
        run.extra.push(stuck);
    }
    run.judge(setup, scenario).await
}

async fn create_topics(cluster: &mut Cluster, shape: &Shape) -> Result<()> {
    let client = Client::new(cluster.name_servers(), "jepsen-setup");
    let leader = cluster.leader().await?;
    let broker = cluster.node(leader)?.addresses.broker.clone();
    for topic in shape.topic_names() {
        let mut tries = 0;
        while let Err(error) = client.create_topic(&broker, &topic, shape.queues).await {
            tries += 1;
            if tries > CREATE_TRIES {
                return Err(error);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    cluster.caught_up().await
}

impl Run {
    async fn break_it(&mut self, scenario: &Scenario) -> Result<()> {
        match scenario {
            Scenario::KillLeader { kills, seconds_between } => {
                kill_leader::run(self, *kills, *seconds_between).await
            }
            Scenario::PauseLeader { pauses, seconds } => pause_leader::run(self, *pauses, *seconds).await,
            Scenario::StopLeader { stops } => stop_leader::run(self, *stops).await,
            Scenario::KillAll { rounds, wipe_derived } => kill_all::run(self, *rounds, *wipe_derived).await,
            Scenario::Chaos { rounds } => chaos::run(self, *rounds).await,
            Scenario::LoseDisk { rounds } => lose_disk::run(self, *rounds).await,
            Scenario::Retention => retention::run(self).await,
            Scenario::Rot { seconds_before } => rot::run(self, *seconds_before).await,
            Scenario::ReplaceNode => replace_node::run(self).await,
            Scenario::StaleAddress => stale_address::run(self).await,
            Scenario::Grow { rounds } => grow::run(self, *rounds).await,
            Scenario::SplitBrain => split_brain::run(self).await,
            Scenario::Upgrade { later } => upgrade::run(self, later).await,
            Scenario::IdleStalls { seconds, stalling } => idle_stalls::run(self, *seconds, *stalling).await,
        }
    }

    fn live_readers(&self) -> Vec<LiveReader> {
        let start = |node: &crate::node::Node| {
            let consumer = format!("reader at node {}", node.id);
            let brokers = vec![node.addresses.broker.clone()];
            LiveReader::start(brokers, consumer, self.shape.clone(), Arc::clone(&self.recorder))
        };
        self.cluster.running().map(start).collect()
    }

    /// The next random number, the same for the same seed.
    fn random(&mut self) -> u64 {
        self.random = mix(self.random);
        self.random
    }

    /// Waits for about `seconds`: half of it to one and a half times.
    async fn wait_about(&mut self, seconds: f64) {
        let part = 0.5 + (self.random() % 1000) as f64 / 1000.0;
        sleep(Duration::from_secs_f64(seconds * part)).await;
    }

    /// Waits for an acknowledged send that began after this moment.
    async fn acknowledged_since(&mut self, at_us: u64) -> Result<u64> {
        loop {
            if let Some(acked) = self.recorder.acked_after(at_us) {
                return Ok(acked);
            }
            self.cluster.check_alive()?;
            let waited = Duration::from_micros(self.recorder.now_us().saturating_sub(at_us));
            anyhow::ensure!(
                waited < crate::cluster::READY_TIMEOUT,
                "no write was acknowledged for {waited:?} after a fault; statuses: {:?}",
                self.cluster.statuses().await
            );
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn judge(mut self, setup: &Setup, scenario: &Scenario) -> Result<Report> {
        let history = self.recorder.finish()?;
        let replicas = match self.read_replicas().await {
            Ok(replicas) => replicas,
            Err(error) => {
                let mut unreadable = Finding::fatal("unreadable");
                unreadable.add(|| format!("{error:#}"));
                self.extra.push(unreadable);
                Vec::new()
            }
        };
        let mut findings = checker::check_all(&history, &replicas, Rules::default());
        let read_end = replicas.iter().map(Reading::log_end).max().unwrap_or(0);
        let mut compared = 0;
        if !replicas.is_empty() {
            let (finding, end) =
                self.cluster.compare_logs(read_end).await.context("compare the log files")?;
            findings.push(finding);
            compared = end;
        }
        findings.push(self.cluster.health());
        findings.append(&mut self.extra);
        let mut report = Report::new(scenario.name(), setup.seed, &history, findings);
        report.replica_bytes = compared;
        report.leader_changes = self.leader_changes.take();
        report.replicas_identical &= compared > 0;
        Ok(report)
    }

    /// Reads every queue on every running node, once all of them rest.
    async fn read_replicas(&mut self) -> Result<Vec<Reading>> {
        self.cluster.settled().await?;
        let client = Arc::new(Client::new(Vec::new(), "jepsen-checker"));
        let mut readings = Vec::new();
        for node in self.cluster.running() {
            let reader = format!("node {}", node.id);
            readings.push(reader::read_to_end(&client, &node.addresses.broker, &reader, &self.shape).await?);
        }
        Ok(readings)
    }
}
