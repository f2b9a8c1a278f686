//! What waits for the writer, in the order it was asked for.
//!
//! It is not bounded by itself: its one caller, raft's core, has a bounded number of entries in flight. What is bounded
//! is a group, the part taken for one write and one sync.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::bad_filler::BadFiller;
use super::error::WriteError;
use super::mark::Start;
use super::segment::Segment;
use crate::record::{EntryId, Record};

/// Bytes written and synced together at most: about what one sync takes anyway at a few hundred MB/s, so that a
/// completion never waits for much more than one sync before its own.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// Called by the writer, in the order of submission.
pub type Completion = Box<dyn FnOnce(Result<(), WriteError>) + Send>;

/// A record on its way to disk.
pub(super) struct Append {
    pub(super) record: Record,
    pub(super) segment: Arc<Segment>,
    /// Counts appends, also of one index again after a truncation.
    pub(super) sequence: u64,
    /// Counts truncations: a durable watermark of an older epoch says nothing about the log of today.
    pub(super) epoch: u64,
}

/// Something done alone, after all that was asked for before is durable.
pub(super) enum Change {
    Vote(Bytes),
    Truncate {
        end: u64,
        last: Option<EntryId>,
        epoch: u64,
    },
    /// Segments below `keep` go.
    Purge {
        start: Start,
        keep: u64,
        epoch: u64,
    },
    Reset {
        start: Start,
        epoch: u64,
    },
    /// A damaged record is replaced.
    Mend(Record),
    /// Damaged filler is written again.
    Blank(BadFiller),
    Close,
}

impl Change {
    /// Whether a purge that was asked for later may be done before it: where it does not change which records there are, or
    /// is a purge itself.
    pub(super) fn lets_purges_pass(&self) -> bool {
        matches!(self, Change::Vote(_) | Change::Mend(_) | Change::Blank(_) | Change::Purge { .. })
    }

    /// Whether it is a purge that takes away nothing but what lies before `end`.
    pub(super) fn purges_before(&self, end: u64) -> bool {
        matches!(self, Change::Purge { start, .. } if start.position <= end)
    }
}

pub(super) enum Job {
    Append(Append),
    Done(Completion),
    Fail(Completion, WriteError),
    Change(Change, Completion),
}

/// What the writer does in one go.
#[derive(Default)]
pub(super) struct Group {
    pub(super) appends: Vec<Append>,
    pub(super) completions: Vec<Awaiting>,
    pub(super) change: Option<(Change, Completion)>,
}

/// A completion among the appends of its group.
pub(super) struct Awaiting {
    /// Appends of the group that were asked for before.
    before: usize,
    pub(super) done: Completion,
    pub(super) refused: Option<WriteError>,
}

impl Group {
    /// Takes out the first `appends`, and what was asked for before the next one.
    pub(super) fn take_first(&mut self, appends: usize) -> Group {
        let rest = self.appends.split_off(appends);
        let first = std::mem::replace(&mut self.appends, rest);
        let count = self.completions.partition_point(|awaiting| awaiting.before <= appends);
        let rest = self.completions.split_off(count);
        let completions = std::mem::replace(&mut self.completions, rest);
        self.completions.iter_mut().for_each(|awaiting| awaiting.before -= appends);
        Group { appends: first, completions, change: None }
    }

    fn add(&mut self, job: Job) {
        match job {
            Job::Append(append) => self.appends.push(append),
            Job::Done(done) => self.await_with(done, None),
            Job::Fail(done, error) => self.await_with(done, Some(error)),
            Job::Change(change, done) => self.change = Some((change, done)),
        }
    }

    fn await_with(&mut self, done: Completion, refused: Option<WriteError>) {
        self.completions.push(Awaiting { before: self.appends.len(), done, refused });
    }
}

#[derive(Default)]
struct Jobs {
    jobs: VecDeque<Job>,
    waiting: bool,
    closed: bool,
}

#[derive(Default)]
pub(super) struct Queue {
    jobs: Mutex<Jobs>,
    arrived: Condvar,
}

impl Queue {
    /// Adds a job; gives it back when the queue is closed.
    pub(super) fn push(&self, job: Job) -> Result<(), Job> {
        let mut jobs = self.jobs.lock();
        if jobs.closed {
            return Err(job);
        }
        jobs.closed = matches!(job, Job::Change(Change::Close, _));
        jobs.jobs.push_back(job);
        if jobs.waiting {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Takes those purges of what lies before `end` that may be done before everything else that waits.
    pub(super) fn take_purges(&self, end: u64) -> Vec<(Change, Completion)> {
        let (mut purges, mut kept, mut passing) = (Vec::new(), VecDeque::new(), true);
        let mut jobs = self.jobs.lock();
        for job in std::mem::take(&mut jobs.jobs) {
            match job {
                Job::Change(change, done) if passing && change.purges_before(end) => {
                    purges.push((change, done));
                }
                job => {
                    passing &= !matches!(&job, Job::Change(change, _) if !change.lets_purges_pass());
                    kept.push_back(job);
                }
            }
        }
        jobs.jobs = kept;
        purges
    }

    /// Where nothing but records and their completions comes before a reset: takes all of it into a group that has no change yet.
    pub(super) fn take_to_reset(&self, group: &mut Group) {
        let mut jobs = self.jobs.lock();
        let first = jobs.jobs.iter().position(|job| matches!(job, Job::Change(..)));
        let Some(at) = first.filter(|at| matches!(jobs.jobs[*at], Job::Change(Change::Reset { .. }, _)))
        else {
            return;
        };
        for job in jobs.jobs.drain(..=at) {
            group.add(job);
        }
    }

    /// Takes the jobs of one group; empty when nothing came within `patience`.
    pub(super) fn take(&self, patience: Duration) -> Group {
        let mut jobs = self.jobs.lock();
        if jobs.jobs.is_empty() && !patience.is_zero() {
            jobs.waiting = true;
            self.arrived.wait_for(&mut jobs, patience);
            jobs.waiting = false;
        }
        let (mut group, mut bytes) = (Group::default(), 0);
        while bytes < GROUP_BYTES_MAX
            && let Some(job) = jobs.jobs.pop_front()
        {
            if let Job::Append(append) = &job {
                bytes += append.record.frame().len();
            }
            group.add(job);
            if group.change.is_some() {
                break;
            }
        }
        group
    }
}
