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
    /// Whether what a server adds to a message is kept of each that is read.
    pub marked: bool,
    /// The consumer group whose retries are topic 1, and whose dead letters are topic 2.
    pub retries_of: Option<String>,
}

/// The topic that a consumer group's retries come by.
pub(crate) const RETRIES: u32 = 1;
/// The topic of its dead letters.
pub(crate) const DEAD_LETTERS: u32 = 2;

impl Shape {
    /// Name of a topic.
    #[must_use]
    pub fn topic(&self, number: u32) -> String {
        match (&self.retries_of, number) {
            (Some(group), RETRIES) => format!("%RETRY%{group}"),
            (Some(group), DEAD_LETTERS) => format!("%DLQ%{group}"),
            _ => format!("{}-{number}", self.name),
        }
    }

    /// Whether consumers' groups make the topic, not its owner.
    #[must_use]
    pub fn is_groups(&self, topic: u32) -> bool {
        self.retries_of.is_some() && topic > 0
    }

    /// Queues of a topic.
    fn queues_of(&self, topic: u32) -> u32 {
        if self.is_groups(topic) { 1 } else { self.queues }
    }

    /// Every queue.
    #[must_use]
    pub fn places(&self) -> Vec<QueueKey> {
        let queues = |topic| (0..self.queues_of(topic)).map(move |queue| QueueKey { topic, queue });
        (0..self.topics).flat_map(queues).collect()
    }

    /// Names of all topics.
    #[must_use]
    pub fn topic_names(&self) -> Vec<String> {
        (0..self.topics).map(|number| self.topic(number)).collect()
    }
}
