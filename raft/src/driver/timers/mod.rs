//! Delivers delayed messages: moves each parked message that is due to its real topic, once, and parks what is still pending again
//! before retention drops its segment.
//!
//! Unlike what consumers send back, timers are not moved one by one: one watermark goes over them in the order of their keys
//! (`folio_state::sections::timers`). So the driver's proposals are links of a *chain*. Each begins at the watermark where the one
//! before ends, while that may still be under way. A chain lives in one settled term: a link is proposed
//! once the log has the one before. Where it is not known what became of a link, the next chain begins with the applied state of a later term.
//!
//! How nothing is passed over. A leader that delivers up to a time `t` first has its log stamp everything that it parks from then
//! on later than `t` (`timers.I2`), and remembers where the log ended then. Once it has applied up to there its index has all that
//! is due up to `t`, and nothing can be added to that. A leader of a later term has applied all watermarks of earlier terms before it takes
//! a message, and its log's floor is at least the watermark that it has applied.
//!
//! [`chain`] proposes, [`task`] decides what, [`read`] reads parked messages and makes new ones of them; what retention asks is in `pending_timers`.
//!
//! - `timers.I4` A message is not delivered before the leader's clock has reached its due time.
//! - `timers.I5` Retention drops no segment that holds a pending message.
//! - `timers.I6` Keys and messages in memory, proposals under way and waiting recalls are bounded.

mod chain;
mod read;
mod recall;
mod task;

use tokio::sync::mpsc;

use super::in_flight::Reply;
use crate::group::tasks;
use crate::proposal::ProposeError;
use recall::WaitingRecall;

pub use recall::Recall;

/// Recalls that may wait.
const RECALLS_MAX: usize = 1024;

/// The entrance to the driver. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Timers {
    recalls: mpsc::Sender<WaitingRecall>,
}

impl Timers {
    /// Starts the driver's task.
    pub(crate) fn start(parts: super::Parts) -> Timers {
        let (recalls, waiting) = mpsc::channel(RECALLS_MAX);
        let shared = parts.shared.clone();
        tasks::spawn(&shared, "the driver of timers", task::Task::new(parts, waiting).run());
        Timers { recalls }
    }

    /// Recalls a pending message. `reply` is called once that is committed and applied here, or failed. Never blocks.
    pub(crate) fn recall(&self, recall: Recall, reply: Reply) {
        if let Err(refused) = self.recalls.try_send(WaitingRecall { recall, reply }) {
            let error = match &refused {
                mpsc::error::TrySendError::Full(_) => ProposeError::Busy,
                mpsc::error::TrySendError::Closed(_) => super::requests::stopped(),
            };
            (refused.into_inner().reply)(Err(error));
        }
    }
}
