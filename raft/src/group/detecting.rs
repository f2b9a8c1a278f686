//! The task that shows the failure detector what openraft says.

use std::sync::Weak;

use openraft::async_runtime::WatchReceiver;
use tokio::time::{MissedTickBehavior, interval};

use super::Inner;
use super::failure_detector::LOOK_INTERVAL;

/// Looks again and again, until its task is aborted.
pub(super) async fn run(inner: Weak<Inner>) {
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        let shared = &inner.shared;
        shared.detector.look(&shared.eligibility, &inner.raft.metrics().borrow_watched());
    }
}
