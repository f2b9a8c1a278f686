//! `folio-jepsen`: the command line of the black-box harness: `run` hunts with every nemesis under
//! every workload, `hostile` attacks as broken and hostile clients do, `list` names them, the other commands do one thing each, as often as told.
//!
//! Exit code 0: nothing was found. 1: a promise was broken; data, logs and history are kept and
//! named. 2: the harness could not do its work, which says nothing about the cluster.

mod cli;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::Parser;
use folio_jepsen::cluster::ports_are_free;
use folio_jepsen::hostile::{self, Bounds, attack};
use folio_jepsen::hunt::{self, Listing, Plan, PlantedPlan};
use folio_jepsen::nemesis::Skip;
use folio_jepsen::network::Network;
use folio_jepsen::payload::mix;
use folio_jepsen::report::Report;
use folio_jepsen::scenario::{self, Scenario, Setup};
use folio_jepsen::{binary, workload::Shape};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use cli::{Between, Cli, Options, What};

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
    match what {
        What::Run { workload, nemesis, minutes, network } => {
            hunt_with(options, (workload, nemesis), *minutes, *network)
        }
        What::Planted { minutes, tries, defect } => plant(options, *minutes, *tries, defect),
        What::Hostile { .. } => hostile_with(options, what),
        _ => print(options, &Listing::here()).map(|()| 0),
    }
}

fn hunt_with(
    options: &Options,
    (workload, nemesis): (&str, &str),
    minutes: f64,
    between: Between,
) -> Result<u8> {
    let length = Duration::try_from_secs_f64(minutes * 60.0).context("--minutes")?;
    let (workloads, nemeses) = (hunt::workloads(workload)?, hunt::nemeses(nemesis)?);
    let folder = Folder::create(options.dir.clone())?;
    let setup = setup(options, &folder)?;
    let mut plan = Plan {
        binary: setup.binary,
        dir: setup.dir,
        base_port: setup.base_port,
        seed: setup.seed,
        workloads,
        nemeses,
        length,
        keep: options.keep,
        network: Network::Relays,
    };
    let missing = match between {
        Between::Relay => None,
        Between::Namespaces => settle(&mut plan)?,
    };
    let report = match missing {
        Some(why) => hunt::skip_all(&plan, &why),
        None => block_on(async { Ok(hunt::run(&plan).await) })?,
    };
    let json = serde_json::to_string(&report).context("write the report")?;
    std::fs::write(folder.path.join("report.json"), json).context("write the report")?;
    print(options, &report)?;
    match report.ok && !options.keep {
        true => folder.remove(),
        false => eprintln!("kept: {}", folder.path.display()),
    }
    Ok(report.exit_code())
}

/// Makes networks for the plan's nodes and moves there, with all threads that are still to start;
/// why not, where there can be none.
fn settle(plan: &mut Plan) -> Result<Option<Skip>> {
    match hunt::namespaces() {
        Ok(made) => {
            made.enter()?;
            plan.network = Network::Namespaces(made);
            Ok(None)
        }
        Err(why) => Ok(Some(why)),
    }
}

fn plant(options: &Options, minutes: f64, tries: u64, only: &[String]) -> Result<u8> {
    let folder = Folder::create(options.dir.clone())?;
    let Setup { binary, dir, base_port, seed, .. } = setup(options, &folder)?;
    let plan = PlantedPlan { binary, dir, base_port, seed, minutes, tries, only: only.to_vec() };
    let report = block_on(hunt::run_planted(&plan))?;
    print(options, &report)?;
    match report.is_good() && !options.keep {
        true => folder.remove(),
        false => eprintln!("kept: {}", folder.path.display()),
    }
    Ok(u8::from(!report.is_good()))
}

/// Length of one attack, in seconds, and of one of the short set.
const ATTACK_SECONDS: [u64; 2] = [10, 5];

fn hostile_with(options: &Options, what: &What) -> Result<u8> {
    let What::Hostile { attack, short, seconds, wide, rate, open_files, report: file } = what else {
        anyhow::bail!("not the hostile family")
    };
    let names = if *short && attack.is_empty() { attack::short() } else { attack.clone() };
    let attacks = attack::named(&names)?;
    let folder = Folder::create(options.dir.clone())?;
    let Setup { binary, dir, base_port, seed, .. } = setup(options, &folder)?;
    let length = Duration::from_secs(seconds.unwrap_or(ATTACK_SECONDS[usize::from(*short)]));
    let bounds = if *wide || *short { Bounds::wide() } else { Bounds::strict() };
    let (rate, open_files) = (*rate, *open_files);
    let plan = hostile::Plan { binary, dir, base_port, seed, attacks, length, rate, open_files, bounds };
    let report = block_on(hostile::run(plan))?;
    let json = serde_json::to_string(&report).context("write the report")?;
    let places = [Some(folder.path.join("report.json")), file.clone()];
    for place in places.into_iter().flatten() {
        std::fs::write(&place, &json).with_context(|| format!("write {}", place.display()))?;
    }
    print(options, &report)?;
    match report.ok && !options.keep {
        true => folder.remove(),
        false => eprintln!("kept: {} (cluster-*/node-*/node.log)", folder.path.display()),
    }
    Ok(u8::from(!report.ok))
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

/// Runs to the end, or to Ctrl-C or SIGTERM: dropping what runs drops the cluster, which kills its
/// processes.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate()).context("listen to SIGTERM")?;
        tokio::select! {
            done = work => done,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
            _ = terminated.recv() => Err(anyhow::anyhow!("terminated")),
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
            any_queue: false,
            marked: false,
            retries_of: None,
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
