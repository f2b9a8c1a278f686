//! The command line's words.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use folio_jepsen::nemesis::Stalling;
use folio_jepsen::scenario::Scenario;

/// Breaks a three-node cluster under load and checks what it promised.
#[derive(Parser)]
#[command(name = "folio-jepsen", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) what: What,
    #[command(flatten)]
    pub(crate) options: Options,
}

#[derive(Subcommand)]
pub(crate) enum What {
    /// Name every workload, checker and nemesis, and what cannot be used here
    List,
    /// Every chosen nemesis under every chosen workload
    Run {
        /// Workloads: all, or names with commas between them
        #[arg(long, default_value = "all")]
        workload: String,
        /// Nemeses: all, or names with commas between them
        #[arg(long, default_value = "all")]
        nemesis: String,
        /// How long, shared out among the nemeses; starting and checking come on top
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
        /// By what links between nodes are broken; namespaces need root
        #[arg(long, value_enum, default_value_t = Between::Relay)]
        network: Between,
    },
    /// Defects on purpose, one at a time: which checker finds which. Needs --folio built with the feature planted
    Planted {
        /// Minutes of one run
        #[arg(long, default_value_t = 0.5)]
        minutes: f64,
        /// Runs before a defect counts as not caught
        #[arg(long, default_value_t = 6)]
        tries: u64,
        /// Defects, with commas between them; default: all
        #[arg(long, value_delimiter = ',')]
        defect: Vec<String>,
    },
    /// Hostile and broken clients beside a good one
    Hostile {
        /// Attacks, with commas between them; default: all
        #[arg(long, value_delimiter = ',')]
        attack: Vec<String>,
        /// The attacks that are run on every change, five seconds each, with wide bounds
        #[arg(long)]
        short: bool,
        /// How long each attack lasts; default: 10, with --short 5
        #[arg(long)]
        seconds: Option<u64>,
        /// Compare latencies with those of a quiet stretch: for a machine that does other work as well
        #[arg(long)]
        wide: bool,
        /// Messages a second of the good client
        #[arg(long, default_value_t = 2000)]
        rate: u32,
        /// Files that a node may have open
        #[arg(long, default_value_t = 1024)]
        open_files: u32,
        /// Write the report as JSON into this file, too
        #[arg(long)]
        report: Option<PathBuf>,
    },
    /// kill -9 the leader again and again
    KillLeader {
        /// How often
        #[arg(long, default_value_t = 20)]
        kills: u32,
        /// Mean seconds between two kills
        #[arg(long, default_value_t = 2.0)]
        seconds_between: f64,
    },
    /// SIGSTOP the leader again and again
    PauseLeader {
        /// How often
        #[arg(long, default_value_t = 5)]
        pauses: u32,
        /// How long each lasts
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
    },
    /// kill -9 all three nodes at once
    KillAll {
        /// How often
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// Delete consume queues, checkpoint and snapshots before each restart
        #[arg(long)]
        wipe_derived: bool,
    },
    /// SIGTERM to the leader again and again
    StopLeader {
        /// How often
        #[arg(long, default_value_t = 5)]
        stops: u32,
    },
    /// Random faults at random nodes
    Chaos {
        /// How many
        #[arg(long, default_value_t = 20)]
        rounds: u32,
    },
    /// A follower comes back with an empty disk, then the leader dies
    LoseDisk {
        /// How often
        #[arg(long, default_value_t = 4)]
        rounds: u32,
    },
    /// Old segments expire under load, then all nodes die and come back
    Retention,
    /// A flipped bit in a follower's log
    Rot {
        /// Seconds the log grows before; checkpoints come every 15
        #[arg(long, default_value_t = 5.0)]
        seconds_before: f64,
    },
    /// An empty fourth node takes the place of a dead one
    ReplaceNode,
    /// A client knows only the address of a former leader
    StaleAddress,
    /// A cluster born as one node grows to three, has every member replaced and shrinks, with empty disks on the way
    Grow {
        /// How often
        #[arg(long, default_value_t = 1)]
        rounds: u32,
    },
    /// Born as one node, grown to three: the first node's disk is emptied while the others are down
    SplitBrain,
    /// A rolling upgrade to a build of a later feature level, and what becomes of a node that goes back
    Upgrade {
        /// The later build; `cargo build -p folio-cli --features next-level` makes one
        #[arg(long)]
        later: PathBuf,
    },
    /// Stalls of whole processes on an idle cluster: how often its leader changes
    IdleStalls {
        /// For how long
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// The longest stall; the shortest is 50 ms
        #[arg(long, default_value_t = 400)]
        stall_ms: u64,
        /// The longest time between two stalls
        #[arg(long, default_value_t = 20)]
        run_ms: u64,
    },
}

/// What is between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Between {
    /// Relays of ours on each link
    Relay,
    /// A network namespace for each node
    Namespaces,
}

#[derive(Args)]
pub(crate) struct Options {
    /// Print the report as one line of JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// First port of the cluster; default: the first free block from 21876 on
    #[arg(long, global = true, value_parser = clap::value_parser!(u16).range(1024..32_000))]
    pub(crate) base_port: Option<u16>,
    /// The binary under test; default: FOLIO_BIN, folio beside this executable, or built by cargo
    #[arg(long, global = true)]
    pub(crate) folio: Option<PathBuf>,
    /// Seed of every random choice; default: the clock
    #[arg(long, global = true)]
    pub(crate) seed: Option<u64>,
    /// Keep data, logs and history even if nothing was found
    #[arg(long, global = true)]
    pub(crate) keep: bool,
    /// Folder for data, logs and history; default: a new one in the temporary folder
    #[arg(long, global = true)]
    pub(crate) dir: Option<PathBuf>,
    /// Producers; each has one send in flight per queue
    #[arg(long, global = true, default_value_t = 4)]
    pub(crate) producers: u32,
    /// Topics
    #[arg(long, global = true, default_value_t = 4)]
    pub(crate) topics: u32,
    /// Queues of each topic
    #[arg(long, global = true, default_value_t = 4)]
    pub(crate) queues: u32,
    /// Pause after each acknowledged send, to bound the load
    #[arg(long, global = true, default_value_t = 5)]
    pub(crate) think_ms: u64,
}

impl What {
    /// The scenario, if it is one.
    pub(crate) fn scenario(&self) -> Option<Scenario> {
        Some(match *self {
            What::Upgrade { ref later } => Scenario::Upgrade { later: later.clone() },
            What::List | What::Run { .. } | What::Planted { .. } | What::Hostile { .. } => return None,
            What::KillLeader { kills, seconds_between } => Scenario::KillLeader { kills, seconds_between },
            What::PauseLeader { pauses, seconds } => Scenario::PauseLeader { pauses, seconds },
            What::KillAll { rounds, wipe_derived } => Scenario::KillAll { rounds, wipe_derived },
            What::StopLeader { stops } => Scenario::StopLeader { stops },
            What::Chaos { rounds } => Scenario::Chaos { rounds },
            What::LoseDisk { rounds } => Scenario::LoseDisk { rounds },
            What::Retention => Scenario::Retention,
            What::Rot { seconds_before } => Scenario::Rot { seconds_before },
            What::ReplaceNode => Scenario::ReplaceNode,
            What::StaleAddress => Scenario::StaleAddress,
            What::Grow { rounds } => Scenario::Grow { rounds },
            What::SplitBrain => Scenario::SplitBrain,
            What::IdleStalls { seconds, stall_ms, run_ms } => {
                let stalling = Stalling { stall_ms_max: stall_ms, run_ms_max: run_ms };
                Scenario::IdleStalls { seconds, stalling }
            }
        })
    }
}
