//! One machine: what a node's group is handed instead of threads, clock and disk of its own, all stepped by its runtime.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use folio_engine::disk::sim::{SeededChoice, SimDisk};
use folio_engine::log::{Running, Stepped, Worker, Workers};
use folio_raft::host::{Host, System};
use parking_lot::Mutex;

use crate::clock::{Clock, WallClock};
use crate::net::{Delay, Network};

/// How long the disk takes for one step of a worker, or one piece of blocking work.
const USUAL_DISK: Delay = Delay { least: 1, most: 3 };

/// Draws how long the disk takes; a clone is the same disk's.
#[derive(Clone)]
pub(crate) struct Pace(Arc<Mutex<(SeededChoice, Delay)>>);

impl Pace {
    fn new(seed: u64) -> Pace {
        Pace(Arc::new(Mutex::new((SeededChoice::new(seed), USUAL_DISK))))
    }

    pub(crate) fn set(&self, delay: Option<Delay>) {
        self.0.lock().1 = delay.unwrap_or(USUAL_DISK);
    }

    fn draw(&self) -> Duration {
        let (random, delay) = &mut *self.0.lock();
        Duration::from_millis(delay.least + random.below(delay.most - delay.least + 1))
    }
}

/// The parts of one machine that outlive a process on it.
pub(crate) struct Machine {
    pub(crate) disk: SimDisk,
    pub(crate) pace: Pace,
    pub(crate) wall: WallClock,
    pub(crate) boots: u64,
    clock: Clock,
    /// Its disks bring lost bytes back in parts.
    in_parts: bool,
}

impl Machine {
    pub(crate) fn new(seed: u64, clock: &Clock) -> Machine {
        let (pace, wall, in_parts) = (Pace::new(seed), WallClock::new(clock), seed.is_multiple_of(2));
        let mut machine =
            Machine { disk: SimDisk::new(), pace, wall, boots: 0, clock: clock.clone(), in_parts };
        machine.replace_disk();
        machine
    }

    /// Gives it an empty disk.
    pub(crate) fn replace_disk(&mut self) {
        self.disk = SimDisk::new();
        if self.in_parts {
            self.disk.bring_back_in_parts();
        }
    }

    /// What a process started now is handed. To be used inside the process's runtime.
    pub(crate) fn host(&self, network: &Network, node: u64) -> Host {
        let pace = self.pace.clone();
        Host {
            disk: Arc::new(self.disk.clone()),
            workers: Arc::new(SteppedByTasks { clock: self.clock.clone(), pace: pace.clone() }),
            net: network.of(node),
            system: Arc::new(SimSystem { wall: self.wall.clone(), boot: self.boots, pace }),
        }
    }
}

/// Each worker is stepped by a task, which waits as long as the disk takes before every step.
struct SteppedByTasks {
    clock: Clock,
    pace: Pace,
}

impl Workers for SteppedByTasks {
    fn start(&self, _name: &'static str, worker: Box<dyn Worker>) -> io::Result<Box<dyn Running>> {
        let (worker, pace) = (Stepped::new(worker), self.pace.clone());
        let stepped = worker.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(pace.draw()).await;
                if !stepped.step() {
                    return;
                }
            }
        });
        Ok(Box::new(worker))
    }

    fn may_wait(&self) -> bool {
        false
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.clock.now())
    }
}

struct SimSystem {
    wall: WallClock,
    boot: u64,
    pace: Pace,
}

impl System for SimSystem {
    fn wall_clock(&self) -> Duration {
        self.wall.now()
    }

    fn boot_id(&self) -> String {
        format!("boot {}", self.boot)
    }

    fn block(&self, work: Box<dyn FnOnce() + Send>) {
        let takes = self.pace.draw();
        tokio::spawn(async move {
            tokio::time::sleep(takes).await;
            work();
        });
    }
}
