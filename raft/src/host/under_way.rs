//! Work on the disk that is under way: a group that stops waits for it, as nothing else ends what a thread has begun.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::System;

/// A system whose blocking work is counted.
pub(crate) struct UnderWay {
    system: Arc<dyn System>,
    count: Arc<watch::Sender<usize>>,
}

/// One piece of work, until it has ended or was given up.
struct Work(Arc<watch::Sender<usize>>);

impl UnderWay {
    pub(crate) fn new(system: Arc<dyn System>) -> UnderWay {
        UnderWay { system, count: Arc::new(watch::Sender::new(0)) }
    }

    /// Returns once nothing is under way.
    pub(crate) async fn ended(&self) {
        // The sender is here: an error never comes.
        drop(self.count.subscribe().wait_for(|count| *count == 0).await);
    }
}

impl Work {
    fn begin(count: &Arc<watch::Sender<usize>>) -> Work {
        count.send_modify(|count| *count += 1);
        Work(count.clone())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl System for UnderWay {
    fn wall_clock(&self) -> Duration {
        self.system.wall_clock()
    }

    fn boot_id(&self) -> String {
        self.system.boot_id()
    }

    fn block(&self, work: Box<dyn FnOnce() + Send>) {
        let under_way = Work::begin(&self.count);
        self.system.block(Box::new(move || {
            work();
            drop(under_way);
        }));
    }
}
