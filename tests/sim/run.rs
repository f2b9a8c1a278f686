//! Runs as processes of their own: started, told apart, and their figures added up.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use folio_engine::planted;
use parking_lot::Mutex;

use crate::check::Violation;
use crate::faults::Faults;
use crate::script::Script;
use crate::world::{Outcome, Plant, World};
use crate::{entropy, heal, panics};

/// How long things go wrong, milliseconds.
const FAULTS_MS: u64 = 20_000;

/// Names the defect of a run that is to fail.
pub(crate) const PLANT: &str = "FOLIO_SIM_PLANT";
/// The line that a run which held ends with begins like this.
const HELD: &str = "held: ";
/// The stack of a run's thread: unoptimised code nests deep.
const STACK_BYTES: usize = 64 << 20;

impl Plant {
    /// The defect of that name; none for an empty one.
    pub(crate) fn named(name: &str) -> Plant {
        match name {
            "lying-disks" => Plant { lying_disks: true, ..Plant::default() },
            "async-flush" => Plant { async_flush: true, ..Plant::default() },
            "early-answers" => Plant { early_answers: true, ..Plant::default() },
            "stalls" | "stall-is-silence" => Plant { script: Some(Script::Stalls), ..Plant::default() },
            "slow-disks" => Plant { script: Some(Script::SlowDisks), ..Plant::default() },
            "hung-leader" => Plant { script: Some(Script::HungLeader), ..Plant::default() },
            "rotten-snapshots" | "later-start-leads" => {
                Plant { script: Some(Script::RottenSnapshots), ..Plant::default() }
            }
            "deposed-leader" => Plant { script: Some(Script::DeposedLeader), ..Plant::default() },
            _ => Plant::default(),
        }
    }
}

/// Runs a seed to its end.
fn run(seed: u64, plant: Plant) -> Result<Outcome, Violation> {
    let mut world = World::new(seed, plant);
    let mut faults = Faults::new(world.random.below(u64::MAX), world.setup.nodes + 1);
    if let Some(script) = plant.script {
        world.play(script)?;
    }
    while world.clock.now() < FAULTS_MS && plant.script.is_none() {
        if let Some(fault) = faults.due(world.clock.now()) {
            world.suffer(fault);
        }
        world.step()?;
    }
    world.calm();
    heal::heal(&mut world)?;
    Ok(Outcome {
        hash: world.trace.hash(),
        simulated_ms: world.clock.now(),
        acknowledged: world.checks.oracle.acknowledged,
        moved: world.checks.oracle.moves.made,
        waited: world.checks.oracle.timers.delivered_retries,
        paid: world.checks.oracle.transactions.committed,
        committed: world.checks.committed.last(),
        leaders: world.checks.elections.leaders(),
        faults: world.counts.clone(),
    })
}

/// Runs a seed in this process. Fails the test with what was broken.
pub(crate) fn in_process(seed: u64, plant: Plant) {
    let asked = std::env::var(planted::VARIABLE).unwrap_or_default();
    assert_eq!(planted::active().unwrap_or_default(), asked, "needs `--features planted`");
    entropy::seed(seed);
    panics::watch();
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    let run = thread.spawn(move || run(seed, plant)).expect("a thread");
    match run.join() {
        Ok(Ok(outcome)) => println!("{HELD}{}", Figures::of(&outcome)),
        Ok(Err(violation)) => {
            println!("seed {seed}: {violation}");
            // A node that stops may have panicked: what it said comes with it.
            println!("{}", panics::first().unwrap_or_default());
            std::process::exit(1);
        }
        Err(_) => {
            println!("seed {seed}: {}", panics::first().unwrap_or_default());
            std::process::exit(1);
        }
    }
}

/// What a run that held says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Figures {
    hash: u64,
    simulated_ms: u64,
    acknowledged: u64,
    moved: u64,
    waited: u64,
    /// Transactions that were committed.
    pub(crate) paid: u64,
    committed: u64,
    leaders: u64,
    faults: u64,
    runs: u64,
}

impl Figures {
    fn of(outcome: &Outcome) -> Figures {
        Figures {
            hash: outcome.hash,
            simulated_ms: outcome.simulated_ms,
            acknowledged: outcome.acknowledged,
            moved: outcome.moved,
            waited: outcome.waited,
            paid: outcome.paid,
            committed: outcome.committed,
            leaders: outcome.leaders,
            faults: outcome.faults.values().sum(),
            runs: 1,
        }
    }

    fn parse(line: &str) -> Option<Figures> {
        let numbers = line.split_whitespace().filter_map(|word| word.split_once('='));
        let numbers: Vec<u64> = numbers.filter_map(|(_, value)| value.parse().ok()).collect();
        let [hash, simulated_ms, acknowledged, moved, waited, paid, committed, leaders, faults, runs] =
            numbers[..]
        else {
            return None;
        };
        Some(Figures {
            hash,
            simulated_ms,
            acknowledged,
            moved,
            waited,
            paid,
            committed,
            leaders,
            faults,
            runs,
        })
    }

    pub(crate) fn sum(all: &[Figures]) -> Figures {
        all.iter().fold(Figures::default(), |sum, one| Figures {
            hash: sum.hash ^ one.hash,
            simulated_ms: sum.simulated_ms + one.simulated_ms,
            acknowledged: sum.acknowledged + one.acknowledged,
            moved: sum.moved + one.moved,
            waited: sum.waited + one.waited,
            paid: sum.paid + one.paid,
            committed: sum.committed + one.committed,
            leaders: sum.leaders + one.leaders,
            faults: sum.faults + one.faults,
            runs: sum.runs + one.runs,
        })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures {
            hash,
            simulated_ms,
            acknowledged,
            moved,
            waited,
            paid,
            committed,
            leaders,
            faults,
            runs,
        } = self;
        write!(
            f,
            "trace={hash} simulated_ms={simulated_ms} acknowledged={acknowledged} moved={moved} waited={waited} paid={paid} committed={committed} \
             leaders={leaders} faults={faults} runs={runs}"
        )
    }
}

/// A run under way.
pub(crate) struct Run {
    seed: u64,
    plant: String,
    child: Child,
}

impl Run {
    pub(crate) fn of(seed: u64, plant: &str) -> Run {
        let this = std::env::current_exe().expect("this program has a path");
        let child = Command::new(this)
            .args(["one_run", "--exact", "--ignored", "--nocapture"])
            .env("FOLIO_SIM_SEED", seed.to_string())
            .env(PLANT, plant)
            .env(planted::VARIABLE, if planted::NAMES.contains(&plant) { plant } else { "" })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this program starts again");
        Run { seed, plant: plant.into(), child }
    }

    /// Waits for the end; the error is what to tell a person.
    pub(crate) fn finish(self) -> Result<Figures, String> {
        let done = self.child.wait_with_output().expect("a child that was started can be waited for");
        let said = String::from_utf8_lossy(&done.stdout);
        let held =
            said.lines().find_map(|line| line.split_once(HELD)).and_then(|(_, rest)| Figures::parse(rest));
        held.ok_or_else(|| {
            let errors = String::from_utf8_lossy(&done.stderr);
            let plant =
                if self.plant.is_empty() { String::new() } else { format!("{PLANT}={} ", self.plant) };
            format!(
                "{}{}\nseed {} failed; repeat it with\n  {plant}FOLIO_SIM_SEED={} FOLIO_SIM_TRACE=1 \
                 cargo test -p folio-tests --test sim one_run -- --exact --ignored --nocapture",
                said.trim(),
                errors.trim(),
                self.seed,
                self.seed
            )
        })
    }
}

/// The invariant that a failure names.
#[cfg(feature = "planted")]
pub(crate) fn invariant_of(failure: &str) -> &str {
    failure.split(": ").nth(1).unwrap_or("nothing that has a name").lines().next().unwrap_or_default()
}

/// Runs seeds, as many at a time as there are processors, and prints each failure when it comes: the rest may take hours.
pub(crate) fn many(seeds: Range<u64>, plant: &str) -> (Vec<Figures>, Vec<String>) {
    until(seeds, plant, |_| false)
}

/// [`many`], and starts no more seeds after a failure that is `enough`.
pub(crate) fn until(
    seeds: Range<u64>,
    plant: &str,
    enough: impl Fn(&str) -> bool + Sync,
) -> (Vec<Figures>, Vec<String>) {
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, ended) = (AtomicU64::new(seeds.start), Mutex::new(BTreeMap::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let end = Run::of(seed, plant).finish();
            if let Err(failure) = &end {
                println!("{failure}\n");
                if enough(failure) {
                    next.fetch_max(seeds.end, Ordering::Relaxed);
                }
            }
            ended.lock().insert(seed, end);
        }
    };
    std::thread::scope(|scope| (0..at_once).for_each(|_| drop(scope.spawn(work))));
    let (mut figures, mut failures) = (Vec::new(), Vec::new());
    for end in ended.into_inner().into_values() {
        match end {
            Ok(one) => figures.push(one),
            Err(failure) => failures.push(failure),
        }
    }
    (figures, failures)
}
