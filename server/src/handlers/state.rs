//! What the handlers keep between requests: nothing a client was told depends on it surviving.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use folio_broker::identity::Identity;
use folio_broker::settings::Settings;
use folio_protocol::ids::UniqueIds;
use folio_raft::log_rate_limiter::LogRateLimiter;
use parking_lot::Mutex;

use super::changes::Turns;
use super::offsets::Commits;
use super::send::Stamp;
use super::topics::Creations;

use crate::broker::now_ms;

/// The handlers' state on one node.
pub struct HandlerState {
    /// What is added to every stored message.
    pub(crate) stamp: Stamp,
    /// Topics being created for senders that wait.
    pub(crate) creations: Creations,
    /// Topics and groups being replaced.
    pub(crate) turns: Turns,
    /// Consumer offsets on their way into the log.
    pub(crate) commits: Commits,
    /// Log lines about administrative requests that were refused, by request code.
    pub(crate) refusals: Mutex<BTreeMap<i32, LogRateLimiter>>,
    /// Whether the task runs that answers held pulls.
    pub(crate) poll_task_runs: AtomicBool,
    unique_ids: UniqueIds,
    counter: AtomicU32,
}

impl HandlerState {
    /// Nothing under way yet.
    pub fn new(identity: &Identity, settings: &Settings) -> HandlerState {
        // The tag tells two runs of one process id apart: milliseconds of the start.
        let unique_ids = UniqueIds::new(identity.store_host.ip(), std::process::id(), now_ms() as u32);
        HandlerState {
            stamp: Stamp::new(&identity.cluster, &settings.region, settings.trace_on),
            creations: Creations::default(),
            turns: Turns::default(),
            commits: Commits::default(),
            refusals: Mutex::default(),
            poll_task_runs: AtomicBool::new(false),
            unique_ids,
            counter: AtomicU32::new(0),
        }
    }

    /// A number that differs from call to call: spreads messages over queues.
    pub(crate) fn draw(&self) -> u32 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    /// A unique id for a message whose client made none.
    pub(crate) fn unique_id(&self) -> String {
        self.unique_ids.id(now_ms(), self.draw() as u16)
    }
}
