//! How big a workload is, and where its messages go.

use std::time::Duration;

use crate::queue_key::QueueKey;

/// How big the workload is and what its messages are called.
#[derive(Debug, Clone)]
pub struct Shape {
    /// What its topics are called, before their number.
    pub name: String,
    /// Number of this run: part of every body.
    pub run: u64,
    /// Topics.
    pub topics: u32,
    /// Queues of each topic.
    pub queues: u32,
    /// Producers; sends in flight are producers x topics x queues.
    pub producers: u32,
    /// Whether old messages expire during the run.
    pub expire: bool,
    /// Pause of a lane after each acknowledged send, to bound the load.
    pub think: Duration,
    /// Whether a message of unknown outcome is sent again, with the same unique key.
    pub resend: bool,
    /// Whether a message may lie in any queue of its topic, not only in the one that its body names.
    pub any_queue: bool,
}

impl Shape {
    /// Name of a topic.
    #[must_use]
    pub fn topic(&self, number: u32) -> String {
        format!("{}-{number}", self.name)
    }

    /// Every queue.
    #[must_use]
    pub fn places(&self) -> Vec<QueueKey> {
        let queues = |topic| (0..self.queues).map(move |queue| QueueKey { topic, queue });
        (0..self.topics).flat_map(queues).collect()
    }

    /// Names of all topics.
    #[must_use]
    pub fn topic_names(&self) -> Vec<String> {
        (0..self.topics).map(|number| self.topic(number)).collect()
    }
}
