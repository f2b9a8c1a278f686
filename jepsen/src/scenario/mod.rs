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
mod run;
mod split_brain;
mod stale_address;
mod stop_leader;
mod upgrade;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;

use run::Run;

use crate::checker::Finding;
use crate::client::Client;
use crate::cluster::{Cluster, Options};
use crate::history::Recorder;
use crate::needs::Needs;
use crate::nemesis::Stalling;
use crate::network::Network;
use crate::payload::mix;
use crate::report::Report;
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
    let broken = break_it(&mut run, scenario).await;
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
    run.judge(scenario.name(), setup.seed).await
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

async fn break_it(run: &mut Run, scenario: &Scenario) -> Result<()> {
    match scenario {
        Scenario::KillLeader { kills, seconds_between } => {
            kill_leader::run(run, *kills, *seconds_between).await
        }
        Scenario::PauseLeader { pauses, seconds } => pause_leader::run(run, *pauses, *seconds).await,
        Scenario::StopLeader { stops } => stop_leader::run(run, *stops).await,
        Scenario::KillAll { rounds, wipe_derived } => kill_all::run(run, *rounds, *wipe_derived).await,
        Scenario::Chaos { rounds } => chaos::run(run, *rounds).await,
        Scenario::LoseDisk { rounds } => lose_disk::run(run, *rounds).await,
        Scenario::Retention => retention::run(run).await,
        Scenario::Rot { seconds_before } => rot::run(run, *seconds_before).await,
        Scenario::ReplaceNode => replace_node::run(run).await,
        Scenario::StaleAddress => stale_address::run(run).await,
        Scenario::Grow { rounds } => grow::run(run, *rounds).await,
        Scenario::SplitBrain => split_brain::run(run).await,
        Scenario::Upgrade { later } => upgrade::run(run, later).await,
        Scenario::IdleStalls { seconds, stalling } => idle_stalls::run(run, *seconds, *stalling).await,
    }
}
