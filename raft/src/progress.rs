//! Wakes the tasks that wait for this node to get on: for entries to be applied, for the dedup window to be rebuilt, for another
//! role or term.
//!
//! It carries no value: a task looks at what it waits for itself, and is told here when to look again.
//!
//! Invariant `progress.I1`: no wake-up is lost. A task subscribes before it looks; who makes progress makes it visible before
//! [`Progress::made`].

use tokio::sync::Notify;

/// Told of each entry that is applied, of a dedup window that is complete, of each change of role, leader or term, and of the stop.
#[derive(Default)]
pub(crate) struct Progress(Notify);

impl Progress {
    /// Has those look again who wait.
    pub(crate) fn made(&self) {
        self.0.notify_waiters();
    }

    /// Waits until `look` finds something: it looks at once, and again whenever progress was made.
    pub(crate) async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        loop {
            // progress.I1: it hears of what is made from here on.
            let made = self.0.notified();
            if let Some(found) = look() {
                return found;
            }
            made.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    const STEPS: u64 = 20_000;

    /// Tasks that looked every millisecond would get over a wake-up that is lost.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn progress_i1_no_wakeup_is_lost() {
        let (progress, applied) = (Arc::new(Progress::default()), Arc::new(AtomicU64::new(0)));
        let (making, counting) = (progress.clone(), applied.clone());
        let maker = thread::spawn(move || {
            for index in 1..=STEPS {
                counting.store(index, Ordering::Release);
                making.made();
            }
        });
        let mut seen = 0;
        while seen < STEPS {
            let later = || Some(applied.load(Ordering::Acquire)).filter(|now| *now > seen);
            let waited = tokio::time::timeout(Duration::from_secs(60), progress.until(later)).await;
            seen = waited.expect("progress.I1");
        }
        maker.join().expect("it does not panic");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_looks_only_when_there_is_something_new() {
        let (progress, looks) = (Arc::new(Progress::default()), Arc::new(AtomicU64::new(0)));
        let (waiting, counting) = (progress.clone(), looks.clone());
        let third = move || (counting.fetch_add(1, Ordering::Relaxed) >= 2).then_some(());
        let task = tokio::spawn(async move { waiting.until(third).await });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(looks.load(Ordering::Relaxed), 1);
        progress.made();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(looks.load(Ordering::Relaxed), 2);
        progress.made();
        task.await.expect("it does not panic");
    }
}
