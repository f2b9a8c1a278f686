//! Sends that were taken in the moment the disk filled: they are answered, though nobody knows yet what becomes of them.
//!
//! A record that the log has taken waits for its segment, and its proposers with it, until the disk has room. A client does
//! not wait that long, and a client that hears nothing learns nothing either. Their answer is that the outcome is unknown.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::Inbox;
use super::replies::{Replies, Waiters};
use crate::dedup::flights::Flights;
use crate::proposal::ProposeError;
use crate::shared::Shared;

/// How long the proposers of a record wait while the disk is full: RocketMQ's clients wait three seconds.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How often is looked who waits.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// What they are told.
pub(crate) const DISK_FULL: &str = "the leader's disk filled meanwhile";

struct Record {
    waiters: Weak<Mutex<Replies>>,
    flight: u64,
    since: Instant,
}

/// The records under way, for [`Overdue::run`].
#[derive(Default)]
pub(super) struct Overdue(Mutex<Vec<Record>>);

impl Overdue {
    /// A record begins its way.
    pub(super) fn begin(&self, replies: Replies, flight: u64) -> Waiters {
        let waiters = Arc::new(Mutex::new(replies));
        let mut records = self.0.lock();
        records.retain(|record| record.waiters.strong_count() > 0);
        records.push(Record { waiters: Arc::downgrade(&waiters), flight, since: Instant::now() });
        waiters
    }

    /// Answers who waits too long for a full disk, until the group stops.
    pub(super) async fn run(&self, shared: &Shared, flights: &Mutex<Flights>, inbox: &Inbox) {
        while !*shared.stopping.borrow() {
            sleep(LOOK_INTERVAL).await;
            if !shared.has_room(1) {
                self.answer(flights, inbox);
            }
        }
    }

    fn answer(&self, flights: &Mutex<Flights>, inbox: &Inbox) {
        let overdue: Vec<_> = {
            let records = self.0.lock();
            let late = records.iter().filter(|record| record.since.elapsed() >= ANSWER_WITHIN);
            late.filter_map(|record| Some((record.waiters.upgrade()?, record.flight))).collect()
        };
        for (waiters, flight) in overdue {
            let error = || ProposeError::Unknown(DISK_FULL.into());
            let replies = std::mem::take(&mut *waiters.lock());
            replies.refuse(&error());
            let parked = flights.lock().unpark(flight);
            parked.into_iter().for_each(|parked| inbox.answer(parked.waiting, Err(error())));
        }
    }
}
