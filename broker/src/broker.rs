//! The broker of one group on one node: what its services work on. What it shares with other groups of the node:
//! [`NodeContext`].
//!
//! Not here: the services themselves, one file each (`send/`, `pull/`, `offsets.rs`, ...), and who calls them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use folio_engine::queues::Arrival;
use folio_raft::group::Group;
use folio_raft::status::{Role, Status};
use folio_state::{ConsumerGroup, State, Topic};
use tokio::sync::watch;

use crate::clients::ClientTable;
use crate::cold_reads::ColdReads;
use crate::commits::Commits;
use crate::creations::Creations;
use crate::hearing::Hearing;
use crate::identity::Identity;
use crate::name_locks::NameLocks;
use crate::node::NodeContext;
use crate::polls::{Held, PollTable};
use crate::pop::{PopLocks, Waits};
use crate::rates::Rates;
use crate::sends::SendTable;
use crate::settings::Settings;
use crate::stamp::Stamp;
use crate::system;
use crate::transactions::Checks;

/// The broker of one group on one node.
pub struct Broker {
    /// What it shares with the node's other groups.
    pub node: Arc<NodeContext>,
    /// Names and addresses.
    pub identity: Identity,
    /// The replicated group.
    pub group: Group,
    /// What an operator may set.
    pub settings: Settings,
    /// Pulls that wait for a message.
    pub polls: PollTable<Box<dyn Held>>,
    /// Who pops from which queue.
    pub(crate) pop_locks: PopLocks,
    /// Pops that wait for a message.
    pub(crate) pop_waits: Waits,
    /// Who is connected, here and at the other nodes.
    pub clients: ClientTable,
    /// What became of the sends of this node's clients.
    pub sends: SendTable,
    /// Whether the task runs that answers held pulls.
    pub(crate) poll_task_runs: AtomicBool,
    /// Reads of old messages.
    pub(crate) cold_reads: ColdReads,
    /// Half messages that are proposed, or about to be (`transactions.I2`).
    pub(crate) halves_under_way: Arc<AtomicU64>,
    /// Questions to producers about their transactions.
    pub(crate) checks: Checks,
    /// How far the other nodes have heard who is connected here.
    pub(crate) hearing: Hearing,
    /// What is added to every stored message.
    pub(crate) stamp: Stamp,
    /// Topics being created for senders that wait.
    pub(crate) creations: Creations,
    /// Topics and groups being replaced.
    pub(crate) replaced: NameLocks,
    /// Consumer offsets on their way into the log.
    pub(crate) commits: Commits,
    /// How fast groups consume.
    pub(crate) rates: Rates,
    /// Leaders have said that they have applied up to here.
    told_position: AtomicU64,
    status: watch::Receiver<Status>,
}

impl Broker {
    /// A broker over a running group, set as an operator wants it.
    pub fn new(node: Arc<NodeContext>, identity: Identity, settings: Settings, group: Group) -> Arc<Self> {
        Arc::new(Self {
            polls: PollTable::new(settings.polls_max),
            pop_locks: PopLocks::default(),
            pop_waits: Waits::default(),
            clients: ClientTable::new(identity.addresses.clone()),
            sends: SendTable::default(),
            poll_task_runs: AtomicBool::new(false),
            cold_reads: ColdReads::new(settings.cold_reads.clone(), group.clone()),
            halves_under_way: Arc::default(),
            checks: Checks::default(),
            hearing: Hearing::default(),
            stamp: Stamp::new(&identity.cluster, &settings.region, settings.trace_on),
            creations: Creations::default(),
            replaced: NameLocks::default(),
            commits: Commits::default(),
            rates: Rates::default(),
            told_position: AtomicU64::new(0),
            status: group.watch(),
            node,
            identity,
            settings,
            group,
        })
    }

    /// This node in the group.
    pub fn node_id(&self) -> u64 {
        self.identity.node_id
    }

    /// Whether this node takes proposals.
    pub fn leads(&self) -> bool {
        self.status.borrow().role == Role::Leader
    }

    /// The nodes of the group besides this one.
    pub fn other_members(&self) -> BTreeSet<u64> {
        let status = self.status.borrow();
        status.members.keys().copied().filter(|id| *id != self.node_id()).collect()
    }

    /// Where everything ends that this node knows to be stored.
    pub fn known_position(&self) -> u64 {
        self.group.applied_position().max(self.told_position.load(Ordering::Acquire))
    }

    /// A leader has applied the log up to here.
    pub fn learn_position(&self, position: u64) {
        self.told_position.fetch_max(position, Ordering::AcqRel);
    }

    /// Messages that readers can see. Called on the thread that applies records: must not block.
    pub fn arrived(&self, arrivals: &[Arrival]) {
        self.polls.note(arrivals);
        self.pop_waits.note(arrivals);
    }

    /// A topic by name: created ones, and those RocketMQ has without anybody creating them.
    pub fn topic(&self, name: &str) -> Option<Topic> {
        let created = self.group.state().topic(name).cloned();
        created.or_else(|| system::topic(name, &self.identity))
    }

    /// All topics, created and built-in ones, in no order; a created one comes after a built-in one of its name.
    pub fn topics(&self) -> Vec<Topic> {
        let built_in = system::names(&self.identity);
        let mut topics: Vec<Topic> =
            built_in.iter().filter_map(|name| system::topic(name, &self.identity)).collect();
        topics.extend(self.copied_state().topics().cloned());
        topics
    }

    /// A consumer group by name.
    pub fn consumer_group(&self, name: &str) -> Option<ConsumerGroup> {
        self.group.state().group(name).cloned()
    }

    /// All consumer groups.
    pub fn consumer_groups(&self) -> Vec<ConsumerGroup> {
        self.copied_state().groups().cloned().collect()
    }

    /// The state of this moment, for what looks at much of it: a copy costs little, and while the state is read nothing is
    /// applied.
    fn copied_state(&self) -> State {
        self.group.state().clone()
    }
}
