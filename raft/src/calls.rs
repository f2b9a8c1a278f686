//! Calls of other nodes that are not answered yet: a stop waits for their answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// How many calls are unanswered.
#[derive(Default)]
pub(crate) struct Calls {
    unanswered: AtomicUsize,
    all_answered: Notify,
}

/// A call of another node, until its answer is written.
pub(crate) struct UnansweredCall(Arc<Calls>);

impl Calls {
    /// Counts a call that has come.
    pub(crate) fn begin(self: &Arc<Calls>) -> UnansweredCall {
        self.unanswered.fetch_add(1, Ordering::AcqRel);
        UnansweredCall(self.clone())
    }

    /// Waits until every call that has come is answered.
    pub(crate) async fn answered(&self) {
        loop {
            // Before the look: an answer in between wakes this task.
            let all_answered = self.all_answered.notified();
            if self.unanswered.load(Ordering::Acquire) == 0 {
                return;
            }
            all_answered.await;
        }
    }
}

impl Drop for UnansweredCall {
    fn drop(&mut self) {
        if self.0.unanswered.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.all_answered.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_the_last_answer_and_no_longer() {
        let calls = Arc::new(Calls::default());
        calls.answered().await;
        let (first, second) = (calls.begin(), calls.begin());
        let waiting = calls.clone();
        let stop = tokio::spawn(async move { waiting.answered().await });
        drop(first);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!stop.is_finished());
        drop(second);
        stop.await.expect("it does not panic");
    }
}
