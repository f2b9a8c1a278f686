//! What clients do while the cluster breaks: one workload a file, each with topics and a history of
//! its own.
//!
//! A workload never judges. It keeps its clients busy through every fault, then lets its consumers
//! reach the end, and hands its history to the checkers with the [`Rules`] it may be held to.

mod group;
mod linearizable;
mod writers;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

pub use writers::{Shape, Target, Writers};

use crate::checker::Rules;
use crate::history::Recorder;
use crate::reader::LiveReader;
use group::Members;
use linearizable::Queues;

/// How long consumers may take to reach the end once nothing is written any more and nothing broken.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// The workloads there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Writers and readers.
    Log,
    /// A consumer group.
    Group,
    /// Few operations on many queues, each judged as one object.
    Linearizable,
    /// Writers that send again what may have been lost.
    Retry,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Log, Self::Group, Self::Linearizable, Self::Retry];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Group => "group",
            Self::Linearizable => "linearizable",
            Self::Retry => "retry",
        }
    }

    /// What it does, in a line.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::Log => {
                "many writers, unique messages, several topics; a reader at each node and one that roams"
            }
            Self::Group => {
                "a consumer group whose members join and die, commit what they consumed and go on from there"
            }
            Self::Linearizable => "appends, reads and lengths of short-lived queues, through every node",
            Self::Retry => {
                "writers that send a message of unknown outcome again, under the same unique key, until they know"
            }
        }
    }

    /// What its history may be held to.
    #[must_use]
    pub fn rules(self) -> Rules {
        Rules { retried: self == Self::Retry, drained: matches!(self, Self::Log | Self::Group) }
    }

    /// Its topics and writers, for a run of about this length.
    #[must_use]
    pub fn shape(self, run: u64, length: Duration) -> Shape {
        let (topics, queues, producers, think_ms) = match self {
            Self::Log => (3, 3, 3, 8),
            Self::Group => (1, 4, 2, 10),
            Self::Linearizable => (1, linearizable::queues_for(length), 3, 15),
            Self::Retry => (1, 4, 2, 5),
        };
        Shape {
            name: format!("jepsen-{}", self.name()),
            run,
            topics,
            queues,
            producers,
            expire: false,
            think: Duration::from_millis(think_ms),
            resend: self == Self::Retry,
        }
    }
}

/// Where clients find the cluster.
#[derive(Debug, Clone)]
pub struct Site {
    /// The NameServer of every node.
    pub name_servers: Vec<String>,
    /// The broker of every node.
    pub brokers: Vec<String>,
    /// Seed of every random choice.
    pub seed: u64,
}

/// A running workload.
pub struct Workload {
    /// Which one.
    pub kind: Kind,
    /// Its topics.
    pub shape: Shape,
    /// Its history.
    pub recorder: Arc<Recorder>,
    writers: Option<Writers>,
    readers: Vec<LiveReader>,
    members: Option<Members>,
    queues: Option<Queues>,
}

impl Workload {
    /// Starts its clients; its topics are there already.
    #[must_use]
    pub fn start(kind: Kind, shape: Shape, site: &Site, recorder: Arc<Recorder>) -> Self {
        let write = || Writers::start(&site.name_servers, &shape, &Target::Route, &recorder);
        let (mut writers, mut readers, mut members, mut queues) = (None, Vec::new(), None, None);
        match kind {
            Kind::Log => {
                writers = Some(write());
                readers = live_readers(site, &shape, &recorder);
            }
            Kind::Group => {
                writers = Some(write());
                members = Some(Members::start(site, &shape, &recorder));
            }
            Kind::Linearizable => queues = Some(Queues::start(site, &shape, &recorder)),
            Kind::Retry => writers = Some(write()),
        }
        Self { kind, shape, recorder, writers, readers, members, queues }
    }

    /// Stops writing; every send in flight is waited for.
    pub async fn quiet(&mut self) {
        if let Some(writers) = self.writers.take() {
            writers.stop().await;
        }
        if let Some(queues) = self.queues.take() {
            queues.stop().await;
        }
    }

    /// Lets the consumers reach the end of a cluster at rest, and stops them.
    ///
    /// # Errors
    /// When a client panicked: then the harness is wrong.
    pub async fn drain(&mut self) -> Result<()> {
        for reader in self.readers.drain(..) {
            reader.drain(DRAIN_LIMIT).await?;
        }
        if let Some(members) = self.members.take() {
            members.drain(DRAIN_LIMIT).await?;
        }
        Ok(())
    }
}

/// One at each node, and one that asks another node each time.
fn live_readers(site: &Site, shape: &Shape, recorder: &Arc<Recorder>) -> Vec<LiveReader> {
    let start = |brokers: Vec<String>, consumer: String| {
        LiveReader::start(brokers, consumer, shape.clone(), Arc::clone(recorder))
    };
    let fixed = site.brokers.iter().map(|broker| start(vec![broker.clone()], format!("reader at {broker}")));
    let mut readers: Vec<LiveReader> = fixed.collect();
    readers.push(start(site.brokers.clone(), "roaming reader".to_owned()));
    readers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_do_not_share_topics() {
        let names = Kind::ALL.map(|kind| kind.shape(1, Duration::from_secs(60)).topic(0));
        let unique: std::collections::HashSet<&String> = names.iter().collect();
        assert_eq!(unique.len(), names.len(), "{names:?}");
    }
}
