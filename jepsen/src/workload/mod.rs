//! What clients do while the cluster breaks: one workload a file, each with topics and a history of
//! its own.
//!
//! A workload never judges. It keeps its clients busy through every fault, then lets its consumers
//! reach the end, and hands its history to the checkers with the [`Rules`] it may be held to.

mod delays;
mod deletions;
mod group;
mod linearizable;
mod objects;
mod pops;
mod send_backs;
mod sender;
mod shape;
mod site;
mod transactions;
mod writers;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

#[cfg(test)]
pub(crate) use shape::DEAD_LETTERS;
pub(crate) use shape::RETRIES;
pub use shape::Shape;
pub use site::Site;
pub use writers::{Target, Writers};

use crate::checker::Rules;
use crate::history::Recorder;
use crate::reader::LiveReader;
use delays::Delays;
use deletions::Deletions;
use group::Members;
use linearizable::Queues;
use objects::Objects;
use pops::Pops;
use send_backs::SendBacks;
use transactions::Transactions;

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
    /// Producers that send one object several times on purpose.
    SameObject,
    /// Topics that are deleted and made again.
    DeletedTopic,
    /// Producers of delayed messages, which take some back.
    Delays,
    /// Producers of transactions, which end them, or are asked.
    Transactions,
    /// A consumer group that sends messages back.
    SendBacks,
    /// Consumer groups that pop, one of them in order.
    Pops,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Log,
        Self::Group,
        Self::Linearizable,
        Self::Retry,
        Self::SameObject,
        Self::DeletedTopic,
        Self::Delays,
        Self::Transactions,
        Self::SendBacks,
        Self::Pops,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Group => "group",
            Self::Linearizable => "linearizable",
            Self::Retry => "retry",
            Self::SameObject => "same-object",
            Self::DeletedTopic => "deleted-topic",
            Self::Delays => "delays",
            Self::Transactions => "transactions",
            Self::SendBacks => "send-backs",
            Self::Pops => "pops",
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
            Self::SameObject => {
                "producers that send one object several times on purpose: in turn, pipelined, one-way, to every queue, by every broker"
            }
            Self::DeletedTopic => {
                "topics that are filled, deleted and made again, queues taken away and added again, read by a new group each time"
            }
            Self::Delays => {
                "messages that are due after a while, by every way to say so; some are taken back, some are due after the run"
            }
            Self::Transactions => {
                "transactions that are committed, rolled back, ended twice or both ways, at any node, or ended by what their producers answer"
            }
            Self::SendBacks => {
                "a consumer group that sends messages back, again and again, until they are handled or dead letters"
            }
            Self::Pops => {
                "two consumer groups that pop, one of them in order; they acknowledge, change invisible times, or let messages come again"
            }
        }
    }

    /// What its history may be held to.
    #[must_use]
    pub fn rules(self) -> Rules {
        let drained = matches!(self, Self::Log | Self::Group);
        Rules { retried: self == Self::Retry, drained, moves: self == Self::SendBacks, ..Rules::default() }
    }

    /// Its topics and writers, for a run of about this length.
    #[must_use]
    pub fn shape(self, run: u64, length: Duration) -> Shape {
        let (topics, queues, producers, think_ms) = match self {
            Self::Log => (3, 3, 3, 8),
            Self::Group => (1, 4, 2, 10),
            Self::Linearizable => (1, linearizable::queues_for(length), 3, 15),
            Self::Retry => (1, 4, 2, 5),
            Self::SameObject => (1, 4, 2, 10),
            Self::DeletedTopic => (2, 3, 1, 2),
            Self::Delays => (1, 2, 2, 30),
            Self::Transactions => (1, 2, 2, 40),
            Self::SendBacks => (3, 2, 1, 60),
            Self::Pops => (1, 3, 2, 60),
        };
        Shape {
            name: format!("jepsen-{}", self.name()),
            run,
            topics,
            queues,
            producers,
            // Where a queue starts after a deletion is the broker's to say.
            expire: self == Self::DeletedTopic,
            think: Duration::from_millis(think_ms),
            resend: self == Self::Retry,
            any_queue: self == Self::SameObject,
            marked: matches!(self, Self::Delays | Self::Transactions | Self::SendBacks),
            retries_of: (self == Self::SendBacks).then(|| "jepsen-send-backs-group".to_owned()),
        }
    }

    /// Whether its history is one of `jepsen.tests.kafka`: there each message is sent once and stays.
    #[must_use]
    pub fn is_kafka_log(self) -> bool {
        matches!(self, Self::Log | Self::Group | Self::Linearizable | Self::Retry)
    }
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
    objects: Option<Objects>,
    deletions: Option<Deletions>,
    delays: Option<Delays>,
    transactions: Option<Transactions>,
    send_backs: Option<SendBacks>,
    pops: Option<Pops>,
    clocks_jump: bool,
}

impl Workload {
    /// Starts its clients; its topics are there already.
    #[must_use]
    pub fn start(kind: Kind, shape: Shape, site: &Site, recorder: Arc<Recorder>) -> Self {
        let write = || Writers::start(&site.name_servers, &shape, &Target::Route, &recorder);
        let (mut writers, mut readers, mut members) = (None, Vec::new(), None);
        let (mut queues, mut objects, mut deletions) = (None, None, None);
        let (mut delays, mut transactions, mut send_backs, mut pops) = (None, None, None, None);
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
            Kind::SameObject => objects = Some(Objects::start(site, &shape, &recorder)),
            Kind::DeletedTopic => deletions = Some(Deletions::start(site, &shape, &recorder)),
            Kind::Delays => {
                readers = live_readers(site, &shape, &recorder);
                delays = Some(Delays::start(site, &shape, &recorder));
            }
            Kind::Transactions => {
                readers = live_readers(site, &shape, &recorder);
                transactions = Some(Transactions::start(site, &shape, &recorder));
            }
            Kind::SendBacks => {
                // The messages alone are the writers': topics of the group are filled by the cluster.
                let sent = Shape { topics: 1, ..shape.clone() };
                writers = Some(Writers::start(&site.name_servers, &sent, &Target::Route, &recorder));
                send_backs = Some(SendBacks::start(site, &shape, &recorder));
            }
            Kind::Pops => {
                writers = Some(write());
                pops = Some(Pops::start(site, &shape, &recorder));
            }
        }
        let clocks_jump = site.clocks_jump;
        Self {
            kind,
            shape,
            recorder,
            writers,
            readers,
            members,
            queues,
            objects,
            deletions,
            delays,
            transactions,
            send_backs,
            pops,
            clocks_jump,
        }
    }

    /// Stops writing; every send in flight is waited for.
    pub async fn quiet(&mut self) {
        if let Some(writers) = self.writers.take() {
            writers.stop().await;
        }
        if let Some(queues) = self.queues.take() {
            queues.stop().await;
        }
        if let Some(objects) = self.objects.take() {
            objects.stop().await;
        }
        if let Some(deletions) = self.deletions.take() {
            deletions.stop().await;
        }
        if let Some(delays) = &mut self.delays {
            delays.stop().await;
        }
        if let Some(transactions) = &mut self.transactions {
            transactions.stop().await;
        }
    }

    /// Lets the consumers reach the end of a cluster at rest, and stops them.
    ///
    /// # Errors
    /// When a client panicked: then the harness is wrong.
    pub async fn drain(&mut self) -> Result<()> {
        // What is due by a clock that jumped may come after months.
        let limit = if self.clocks_jump { Duration::ZERO } else { DRAIN_LIMIT };
        if let Some(delays) = self.delays.take() {
            delays.drain(limit).await;
        }
        if let Some(transactions) = self.transactions.take() {
            transactions.drain(limit).await;
        }
        if let Some(send_backs) = self.send_backs.take() {
            send_backs.drain(limit).await;
        }
        if let Some(pops) = self.pops.take() {
            pops.drain(limit).await;
        }
        // All at once: where the cluster does not answer any more, each takes as long as it may.
        let mut readers = JoinSet::new();
        for reader in self.readers.drain(..) {
            readers.spawn(reader.drain(DRAIN_LIMIT));
        }
        while let Some(drained) = readers.join_next().await {
            drained.context("a reader's end")??;
        }
        if let Some(members) = self.members.take() {
            members.drain(DRAIN_LIMIT).await?;
        }
        Ok(())
    }
}

/// One at each node, and one that asks another node each time; where old messages are to be read, one more at each
/// node that starts over again and again.
fn live_readers(site: &Site, shape: &Shape, recorder: &Arc<Recorder>) -> Vec<LiveReader> {
    let start = |brokers: Vec<String>, consumer: String| {
        LiveReader::start(brokers, consumer, shape.clone(), Arc::clone(recorder))
    };
    let fixed = site.brokers.iter().map(|broker| start(vec![broker.clone()], format!("reader at {broker}")));
    let mut readers: Vec<LiveReader> = fixed.collect();
    readers.push(start(site.brokers.clone(), "roaming reader".to_owned()));
    for broker in site.brokers.iter().filter(|_| site.old_reads) {
        let consumer = format!("reader from the beginning at {broker}");
        let (shape, recorder) = (shape.clone(), Arc::clone(recorder));
        readers.push(LiveReader::start_over(vec![broker.clone()], consumer, shape, recorder));
    }
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
