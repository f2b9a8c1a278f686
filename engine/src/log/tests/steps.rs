//! Interleavings of the appender and the writer that threads show once in a while, here step by step.

use std::io;
use std::time::Duration;

use super::*;
use crate::disk::sim::{LoseAll, SimDisk};

/// Keeps the workers for the test to step.
#[derive(Default)]
pub(super) struct ByHand(Mutex<Vec<Stepped>>);

impl Workers for ByHand {
    fn start(&self, _name: &'static str, worker: Box<dyn Worker>) -> io::Result<Box<dyn Running>> {
        let worker = Stepped::new(worker);
        self.0.lock().push(worker.clone());
        Ok(Box::new(worker))
    }

    fn may_wait(&self) -> bool {
        false
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

/// A log whose workers the test steps.
pub(super) struct Steps {
    pub(super) log: CommitLog,
    workers: Arc<ByHand>,
    pub(super) disk: SimDisk,
}

impl Steps {
    pub(super) fn open(disk: SimDisk) -> Steps {
        Steps::open_at(disk, StampBase::default())
    }

    pub(super) fn open_at(disk: SimDisk, base: StampBase) -> Steps {
        let workers = Arc::new(ByHand::default());
        let on = Arc::new(disk.clone());
        let log = CommitLog::open_on(on, workers.clone(), Path::new("/"), config(), base, OnRot::Refuse);
        Steps { log: log.unwrap(), workers, disk }
    }

    pub(super) fn step(&self) {
        let workers = self.workers.0.lock().clone();
        for worker in workers {
            worker.step();
        }
    }

    /// Where the durable watermark stands when everything appended so far is reported durable.
    fn watermark_at_completion(&self) -> Arc<Mutex<Option<EntryId>>> {
        let (seen, log) = (Arc::new(Mutex::new(None)), self.log.clone());
        let at = seen.clone();
        self.log.submit(Box::new(move |outcome| {
            outcome.unwrap();
            *at.lock() = log.state().durable;
        }));
        seen
    }
}

/// A follower applied what its leader had committed while a later part of its log was being truncated: the entry was
/// reported durable, and the watermark, which group.I2 is checked against, said that it was not.
#[test]
fn a_completion_ran_ahead_of_the_watermark_while_a_truncation_waited() {
    let steps = Steps::open(SimDisk::new());
    for index in 1..=5 {
        steps.log.append(id(index), command(100)).unwrap();
    }
    let seen = steps.watermark_at_completion();
    steps.log.truncate_after(Some(4), Box::new(|outcome| outcome.unwrap()));
    steps.log.truncate_after(Some(3), Box::new(|outcome| outcome.unwrap()));
    steps.log.append(EntryId { term: 2, index: 4 }, command(700)).unwrap();
    steps.step();
    assert_eq!(*seen.lock(), Some(id(3)), "log.I1");
    steps.step();
    steps.step();
    assert_eq!(steps.log.state().durable, Some(EntryId { term: 2, index: 4 }));
    let found = Steps::open(steps.disk.crash(&mut LoseAll));
    assert_eq!(found.log.state().last, Some(EntryId { term: 2, index: 4 }));
}

#[test]
fn a_log_whose_workers_are_stepped_waits_for_a_full_disk_and_goes_on() {
    let steps = Steps::open(SimDisk::new());
    steps.step();
    steps.disk.set_capacity(Some(steps.disk.used()));
    for index in 1..=20 {
        steps.log.append(id(index), command(900)).unwrap();
    }
    let seen = steps.watermark_at_completion();
    (0..5).for_each(|_| steps.step());
    assert_eq!((*seen.lock(), steps.log.has_room(1)), (None, false));
    steps.disk.set_capacity(None);
    (0..5).for_each(|_| steps.step());
    assert_eq!((*seen.lock(), steps.log.has_room(1)), (Some(id(20)), true));
    steps.log.close();
    assert_eq!(Steps::open(steps.disk.crash(&mut LoseAll)).log.state().last, Some(id(20)));
}
