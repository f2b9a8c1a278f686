//! Pulling: the next messages of a queue, or a promise to answer when there are some.
//!
//! | where the offset stands | status | next offset |
//! |---|---|---|
//! | messages there | found | after the last unit looked at |
//! | messages there, none the consumer wants | ask again | after the last unit looked at |
//! | after the last message, or 0 in a queue that never had one | nothing new, after waiting | the same |
//! | before the first message | moved | the first |
//! | beyond the end | moved | the end |
//! | not 0 in a queue that never had a message | moved | 0 |
//!
//! Any node serves pulls of what it has applied. Whether an offset lies *outside* the queue only the leader
//! can tell, and only after it has applied everything committed before it was elected: a replica that is
//! behind would send a consumer back in time. So a leader proves first that it leads and has applied all that was
//! acknowledged, without an entry in the log (`Group::confirm`), and a follower waits a moment and then lets the
//! leader be asked. For the same reason a follower refuses nothing itself.
//!
//! Recent messages are answered as slices of the log's memory, uncopied. What may be on disk only is read apart from the
//! runtime's threads, once there is memory for it, and what is old besides when its turn has come (`on_disk`).
//!
//! - `pull.I1`: a message is answered only after its topic, queue and offset were compared with what was asked.

mod found;
mod hold;
mod on_disk;
mod read;
mod respond;
mod scan;
mod serve;
mod subject;
mod to_pull;

use std::sync::Arc;

pub(crate) use self::read::{bytes, choose, is_fresh};
pub use self::respond::{Pull, Pulled, Puller, Status};
pub(crate) use self::scan::{Batch, Limits};
use self::subject::{Rules, subject};
pub use self::to_pull::{Subscription, ToPull};
use crate::broker::Broker;
use crate::error::BrokerError;

impl Broker {
    /// Checks a pull. A follower refuses none, as topic, group or subscription may be news that has not come to it yet: it fails
    /// with [`BrokerError::AskLeader`].
    pub fn check_pull(&self, wish: ToPull) -> Result<Pull, BrokerError> {
        self.checked(wish).map_err(|error| if self.leads() { error } else { BrokerError::AskLeader })
    }

    fn checked(&self, wish: ToPull) -> Result<Pull, BrokerError> {
        let state = self.group.state();
        let broker_readable = self.settings.permission.is_readable();
        let rules = Rules { state: &state, identity: &self.identity, broker_readable };
        let subject = subject(&rules, &self.clients, &wish)?;
        // A pull may be held for long: of the texts only the names are needed from here on.
        let ToPull { group, topic, offset, messages_max, bytes_max, wait, .. } = wish;
        let limits = Limits::of(messages_max, bytes_max);
        Ok(Pull { group, topic, offset, wait: wait.unwrap_or_default(), subject, limits })
    }

    /// Serves a pull. The puller is answered exactly once, now or later.
    pub fn pull(self: &Arc<Self>, pull: Pull, puller: impl Puller) {
        serve::serve(self, pull, puller);
    }
}
