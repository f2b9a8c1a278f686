//! What is needed to hand a request out again.

use std::sync::Arc;
use std::time::Duration;

use folio_broker::turns::Turn;
use tokio::time::Instant;

use crate::incoming::Incoming;
use crate::origin::Origin;

/// How long a question for a group's offset waits for a leader. RocketMQ 4, its C++ client and its Go client take every error
/// for "this group has no offset" and go to a queue's start or end; so an error comes only after they have stopped waiting (5 s).
pub(crate) const OFFSET_PATIENCE: Duration = Duration::from_secs(6);

/// A request without its reply.
pub(crate) struct Pending {
    pub(crate) frame: Arc<Incoming>,
    pub(crate) origin: Origin,
    /// When its client is told that there is no leader.
    pub(crate) deadline: Instant,
    /// This node believed it leads, and was told better: it may believe so for another moment.
    pub(crate) tried_here: bool,
    /// Whether it changes nothing: asking twice is as good as asking once (`forward.I2`).
    pub(crate) is_repeatable: bool,
    /// Of a commit, which may be asked for twice as well.
    pub(crate) turn: Option<Turn>,
}
