//! What the connections of one load share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::tally::Tally;
use super::target::Target;

/// How a request failed that lost its connection.
pub(super) const LOST: &str = "CONNECTION_LOST";
/// How a request failed that was not answered.
pub(super) const TIMEOUT: &str = "TIMEOUT";

/// What the connections of a load share. All run on one thread, so its locks are never waited for.
pub(super) struct Shared {
    pub(super) tally: Mutex<Tally>,
    targets: RwLock<Arc<Vec<Target>>>,
    stale: Notify,
    end: Instant,
}

impl Shared {
    /// A load that counts for so long after a warm-up.
    pub(super) fn new(warmup: Duration, measured: Duration, targets: Vec<Target>) -> Result<Arc<Self>> {
        let from = Instant::now() + warmup;
        let end = from + measured;
        Ok(Arc::new(Self {
            tally: Mutex::new(Tally::new(from, end)?),
            targets: RwLock::new(Arc::new(targets)),
            stale: Notify::new(),
            end,
        }))
    }

    /// When the load ends.
    pub(super) fn end(&self) -> Instant {
        self.end
    }

    /// All brokers as last heard.
    pub(super) fn targets(&self) -> Arc<Vec<Target>> {
        Arc::clone(&self.targets.read())
    }

    /// Whether these are still all brokers as last heard. Cheap: connections look before every write.
    pub(super) fn are_current(&self, targets: &Arc<Vec<Target>>) -> bool {
        Arc::ptr_eq(&self.targets.read(), targets)
    }

    /// Takes the brokers over that the route names now.
    pub(super) fn heard(&self, targets: Vec<Target>) {
        if *self.targets() != targets {
            *self.targets.write() = Arc::new(targets);
        }
    }

    /// Waits until somebody asks for the route again.
    pub(super) async fn refresh_asked(&self) {
        self.stale.notified().await;
    }

    /// Asks for the route again, soon.
    pub(super) fn refresh(&self) {
        self.stale.notify_one();
    }
}
