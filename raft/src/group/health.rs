//! A leader whose disk is far slower than the others' gives leadership to one of them.
//!
//! An entry is committed once a majority has it on disk; what the leader's own disk takes longer than that is time that
//! only its applying, and hence every answer, waits for. Where that is long, and stays long, another member serves better.
//! A node whose log is poisoned by a failed write or sync takes no part any more, at once.
//!
//! All disks being slow together is not noticed here: then nothing is committed without this one's help.

use std::collections::VecDeque;
use std::sync::Weak;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::time::{Instant, sleep, timeout};

use super::{Group, HandOver, Inner};
use crate::accepting::Accepting;
use crate::status::Role;

/// How often the leader compares what is committed with what is on its own disk.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A disk this far behind a majority's is slow: ten times and more of what a sync takes on a disk worth using.
const BEHIND: Duration = Duration::from_millis(100);
/// Looks that are judged together: three seconds.
const LOOKS: usize = 30;
/// How many of them must have found the disk behind.
const BEHIND_LOOKS: usize = 24;
/// After handing over, or failing to, the next attempt waits this long.
const PAUSE: Duration = Duration::from_secs(30);

/// What was committed when, and not on this node's disk yet.
#[derive(Default)]
struct Behind {
    waiting: VecDeque<(u64, Instant)>,
    looks: VecDeque<bool>,
}

impl Behind {
    /// One look. `true`: the disk is slow.
    fn look(&mut self, committed: u64, durable: u64, now: Instant) -> bool {
        self.waiting.retain(|(index, _)| *index > durable);
        // Only what was there at an earlier look and still is: how long the rest took is not known.
        let behind = self.waiting.front().is_some_and(|(_, since)| now.duration_since(*since) >= BEHIND);
        if committed > durable && self.waiting.back().is_none_or(|(index, _)| *index < committed) {
            self.waiting.push_back((committed, now));
        }
        self.looks.push_back(behind);
        if self.looks.len() > LOOKS {
            self.looks.pop_front();
        }
        self.looks.iter().filter(|behind| **behind).count() >= BEHIND_LOOKS
    }

    fn forget(&mut self) {
        *self = Behind::default();
    }
}

/// Watches this node's disk while it leads, until its task is aborted.
pub(super) async fn run(inner: Weak<Inner>) {
    let mut behind = Behind::default();
    loop {
        sleep(LOOK_INTERVAL).await;
        let Some(group) = inner.upgrade().map(Group) else { return };
        if group.0.status.borrow().role != Role::Leader {
            behind.forget();
            continue;
        }
        let committed = group.0.raft.metrics().borrow_watched().cluster_committed.map_or(0, |id| id.index);
        let durable = group.0.shared.durable.borrow().index.unwrap_or(0);
        if behind.look(committed, durable, Instant::now()) {
            behind.forget();
            tracing::warn!("this node's disk is far behind the others': handing leadership over");
            if let Err(error) = group.hand_over(None, HandOver::DiskSlow).await {
                tracing::warn!(%error, "leadership not handed over");
            }
            drop(group);
            sleep(PAUSE).await;
        }
    }
}

/// Ends this node's part in the group once its log is poisoned, since nothing becomes durable here any more, also when nobody
/// writes just now; or once one of its tasks has panicked (`tasks.I1`), or openraft has stopped. Until its task is aborted.
///
/// Peers are turned away first: they take a refused connection for a dead process, and one of them leads at once.
pub(super) async fn end_when_failed(inner: Weak<Inner>) {
    let Some(mut status) = inner.upgrade().map(|inner| inner.status.clone()) else { return };
    loop {
        let stopped = status.wait_for(|status| matches!(status.role, Role::Stopped(_)));
        let stopped = timeout(LOOK_INTERVAL, stopped).await.is_ok();
        let Some(group) = inner.upgrade().map(Group) else { return };
        let shared = &group.0.shared;
        let poisoned = shared.log.state().poisoned;
        if stopped || poisoned.is_some() || shared.failed.get().is_some() {
            let reason = poisoned.or_else(|| shared.failed.get().cloned());
            let reason = reason.unwrap_or_else(|| "openraft has stopped".to_owned());
            tracing::error!(reason, "this node takes no part any more");
            // openraft panics in every later call if whoever waits first for its end is cut off. Here a task waits that nothing
            // cuts off. Where openraft has ended by itself, a peer's call may have come first, and gets a moment.
            let raft = group.0.raft.clone();
            let mut ending = tokio::spawn(async move {
                if let Err(error) = raft.shutdown().await {
                    tracing::warn!(%error, "replication did not stop cleanly");
                }
            });
            let ends_itself = group.0.raft.metrics().borrow_watched().running_state.is_err();
            let has_ended = ends_itself && timeout(LOOK_INTERVAL, &mut ending).await.is_ok();
            group.0.listener.abort();
            group.0.port.iter().for_each(Accepting::abort);
            if !has_ended {
                drop(ending.await);
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every 100 ms at a disk that has each entry, one a look, `delay` later than the others.
    fn is_slow(delay_looks: u64, looks: u64) -> bool {
        let (start, mut behind) = (Instant::now(), Behind::default());
        (1..=looks).any(|look| {
            behind.look(look, look.saturating_sub(delay_looks), start + LOOK_INTERVAL * look as u32)
        })
    }

    #[test]
    fn only_a_disk_that_stays_behind_is_slow() {
        assert!(!is_slow(0, 200));
        assert!(!is_slow(1, 200), "up to 100 ms");
        assert!(is_slow(2, 200) && is_slow(5, 200));
        assert!(!is_slow(5, 10), "too soon to tell");
        let (start, mut behind) = (Instant::now(), Behind::default());
        let slow = (1..200u64).any(|look| {
            // A pause of a second every ten.
            let stalled = look % 100 < 10;
            behind.look(
                look,
                if stalled { look - look % 100 } else { look },
                start + LOOK_INTERVAL * look as u32,
            )
        });
        assert!(!slow, "one long sync is no slow disk");
    }

    #[test]
    fn a_disk_that_hangs_is_slow_also_when_nothing_new_is_committed() {
        let (start, mut behind) = (Instant::now(), Behind::default());
        assert!((1..60u32).any(|look| behind.look(7, 6, start + LOOK_INTERVAL * look)));
    }
}
