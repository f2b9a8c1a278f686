//! What a client asks for.

use std::time::Duration;

use folio_protocol::Name;

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct ToPull {
    /// Its consumer group.
    pub group: Name,
    /// From which topic.
    pub topic: Name,
    /// From which queue.
    pub queue_id: i32,
    /// From which offset on.
    pub offset: i64,
    /// At most how many messages.
    pub messages_max: i32,
    /// At most how many bytes.
    pub bytes_max: Option<i32>,
    /// Which messages; none: what the group's heartbeats say.
    pub subscription: Option<Subscription>,
    /// The version of those heartbeats that it means.
    pub sub_version: i64,
    /// How long it may be held where there is no message; none: it is answered at once.
    pub wait: Option<Duration>,
}

/// Which messages a pull is after.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// The filter expression.
    pub expression: String,
    /// Its language; none: tags.
    pub kind: Option<String>,
}
