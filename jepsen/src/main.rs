//! `folio-jepsen`: the command line of the black-box harness: `run` hunts with every nemesis under
//! every workload, `list` names them, the other commands do one thing each, as often as told.
//!
//! Exit code 0: nothing was found. 1: a promise was broken; data, logs and history are kept and
//! named. 2: the harness could not do its work, which says nothing about the cluster.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use folio_jepsen::cluster::ports_are_free;
use folio_jepsen::hunt::{self, Listing, Plan};
use folio_jepsen::payload::mix;
use folio_jepsen::report::Report;
use folio_jepsen::scenario::{self, Scenario, Setup};
use folio_jepsen::{binary, workload::Shape};
use tracing_subscriber::EnvFilter;

/// Breaks a three-node cluster under load and checks what it promised.
#[derive(Parser)]
#[command(name = "folio-jepsen", version)]
struct Cli {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum What {
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
}

#[derive(Args)]
struct Options {
    /// Print the report as one line of JSON
    #[arg(long, global = true)]
    json: bool,
    /// First port of the cluster; default: the first free block from 21876 on
    #[arg(long, global = true, value_parser = clap::value_parser!(u16).range(1024..32_000))]
    base_port: Option<u16>,
    /// The binary under test; default: FOLIO_BIN, folio beside this executable, or built by cargo
    #[arg(long, global = true)]
    folio: Option<PathBuf>,
    /// Seed of every random choice; default: the clock
    #[arg(long, global = true)]
    seed: Option<u64>,
    /// Keep data, logs and history even if nothing was found
    #[arg(long, global = true)]
    keep: bool,
    /// Folder for data, logs and history; default: a new one in the temporary folder
    #[arg(long, global = true)]
    dir: Option<PathBuf>,
    /// Producers; each has one send in flight per queue
    #[arg(long, global = true, default_value_t = 4)]
    producers: u32,
    /// Topics
    #[arg(long, global = true, default_value_t = 4)]
    topics: u32,
    /// Queues of each topic
    #[arg(long, global = true, default_value_t = 4)]
    queues: u32,
    /// Pause after each acknowledged send, to bound the load
    #[arg(long, global = true, default_value_t = 5)]
    think_ms: u64,
}

impl What {
    /// The scenario, if it is one.
    fn scenario(&self) -> Option<Scenario> {
        Some(match *self {
            What::List | What::Run { .. } => return None,
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
        })
    }
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let Cli { what, options } = Cli::parse();
    let ended = match what.scenario() {
        Some(scenario) => start(&options, &scenario).map(|report| u8::from(!report.ok)),
        None => other(&what, &options),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("the harness failed: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// What is no scenario; the exit code.
fn other(what: &What, options: &Options) -> Result<u8> {
    if let What::Run { workload, nemesis, minutes } = what {
        return hunt_with(options, workload, nemesis, *minutes);
    }
    print(options, &Listing::here())?;
    Ok(0)
}

fn hunt_with(options: &Options, workload: &str, nemesis: &str, minutes: f64) -> Result<u8> {
    let length = Duration::try_from_secs_f64(minutes * 60.0).context("--minutes")?;
    let (workloads, nemeses) = (hunt::workloads(workload)?, hunt::nemeses(nemesis)?);
    let folder = Folder::create(options.dir.clone())?;
    let setup = setup(options, &folder)?;
    let plan = Plan {
        binary: setup.binary,
        dir: setup.dir,
        base_port: setup.base_port,
        seed: setup.seed,
        workloads,
        nemeses,
        length,
        keep: options.keep,
    };
    let report = block_on(async { Ok(hunt::run(&plan).await) })?;
    let json = serde_json::to_string(&report).context("write the report")?;
    std::fs::write(folder.path.join("report.json"), json).context("write the report")?;
    print(options, &report)?;
    match report.ok && !options.keep {
        true => folder.remove(),
        false => eprintln!("kept: {}", folder.path.display()),
    }
    Ok(report.exit_code())
}

/// For people, or as one line of JSON.
fn print(options: &Options, what: &(impl std::fmt::Display + serde::Serialize)) -> Result<()> {
    if options.json {
        println!("{}", serde_json::to_string(what).context("write the report")?);
    } else {
        println!("{what}");
    }
    Ok(())
}

/// Runs to the end, or to Ctrl-C: dropping what runs drops the cluster, which kills its processes.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        tokio::select! {
            done = work => done,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        }
    })
}

fn start(options: &Options, scenario: &Scenario) -> Result<Report> {
    let folder = Folder::create(options.dir.clone())?;
    let result = drive(options, scenario, &folder);
    match &result {
        Ok(report) if report.ok && !options.keep => folder.remove(),
        Ok(report) if report.ok => eprintln!("kept: {}", folder.path.display()),
        Ok(report) => {
            eprintln!(
                "kept for a look: {} (node-*/data, node-*/node.log, history.jsonl)",
                folder.path.display()
            );
            eprintln!("again: {} --seed {}", repeat(), report.seed);
        }
        Err(_) => eprintln!("kept for a look: {}", folder.path.display()),
    }
    result
}

fn drive(options: &Options, scenario: &Scenario, folder: &Folder) -> Result<Report> {
    let mut setup = setup(options, folder)?;
    setup.shape.expire = matches!(scenario, Scenario::Retention);
    let report = block_on(scenario::run(&setup, scenario))?;
    let json = serde_json::to_string(&report).context("write the report")?;
    std::fs::write(folder.path.join("report.json"), json).context("write the report")?;
    print(options, &report)?;
    Ok(report)
}

fn setup(options: &Options, folder: &Folder) -> Result<Setup> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seed = options.seed.unwrap_or(clock.as_millis() as u64);
    Ok(Setup {
        binary: binary::find(options.folio.as_deref())?,
        dir: folder.path.clone(),
        base_port: options.base_port.map_or_else(free_ports, Ok)?,
        seed,
        shape: Shape {
            name: "jepsen".to_owned(),
            resend: false,
            run: mix(seed ^ clock.as_nanos() as u64),
            topics: options.topics.max(1),
            queues: options.queues.max(1),
            producers: options.producers.max(1),
            expire: false,
            think: Duration::from_millis(options.think_ms),
        },
    })
}

/// Another run may be under way on this machine.
fn free_ports() -> Result<u16> {
    let mut blocks = (21_876..31_000).step_by(60);
    blocks.find(|base| ports_are_free(*base, 3)).context("no free block of ports; give --base-port")
}

/// The command line that was given, without its seed.
fn repeat() -> String {
    let mut words = vec!["cargo run --release -p folio-jepsen --".to_owned()];
    let mut given = std::env::args().skip(1);
    while let Some(word) = given.next() {
        if word == "--seed" {
            given.next();
        } else if !word.starts_with("--seed=") {
            words.push(word);
        }
    }
    words.join(" ")
}

/// The run's folder; removed when the run found nothing.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn create(given: Option<PathBuf>) -> Result<Self> {
        let path = match given {
            Some(path) => std::path::absolute(path).context("make --dir absolute")?,
            None => {
                tempfile::Builder::new().prefix("folio-jepsen-").tempdir().context("create a folder")?.keep()
            }
        };
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        let empty = path.read_dir().with_context(|| format!("list {}", path.display()))?.next().is_none();
        anyhow::ensure!(empty, "--dir {} is not empty: a run starts with empty nodes", path.display());
        Ok(Self { path })
    }

    fn remove(&self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}
