//! What clients may use of a node, and how much of it they do.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::budget::Budget;
use super::channel::Relief;
use super::connections::Connections;
use super::share::Share;
use super::{Channel, NetConfig};

/// The limits that all connections of a node share.
#[derive(Debug)]
pub struct Resources {
    budget: Arc<Budget>,
    connections: Connections,
    /// What waits for these is not covered by the share of answers.
    uncovered: Mutex<Vec<Channel>>,
    /// Of the clients' tasks.
    runtime: Option<Handle>,
}

/// How much of one resource is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Of what.
    pub name: &'static str,
    /// So much.
    pub used: u64,
    /// The most that may be.
    pub limit: u64,
    /// What an operator changes it with.
    pub key: &'static str,
}

impl Resources {
    /// Nothing is used yet.
    pub fn new(config: &NetConfig) -> Arc<Self> {
        Arc::new(Self {
            budget: Budget::new(config.memory_bytes),
            connections: Connections::new(config),
            uncovered: Mutex::default(),
            runtime: Handle::try_current().ok(),
        })
    }

    /// The bytes that clients make the node hold.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    fn cover_all(&self) {
        let first = || self.uncovered.lock().first().cloned();
        while let Some(channel) = first() {
            self.connections.make_room_for(&channel);
            let mut uncovered = self.uncovered.lock();
            uncovered.remove(0);
            if uncovered.is_empty() {
                // The next one begins a task of its own.
                return;
            }
        }
    }

    /// Use and limit of each resource.
    pub(crate) fn usage(&self) -> Vec<Usage> {
        let counted = |name, (used, limit): (usize, usize), key| Usage {
            name,
            used: used as u64,
            limit: limit as u64,
            key,
        };
        let mut all = vec![
            counted("connections", self.connections.open(), "limits.connections"),
            counted("refused_connections", self.connections.guests(), "fixed"),
            counted("open_files", self.connections.files(), "ulimit -n"),
            counted(
                "frame_bytes",
                (self.budget.frame_bytes(), self.budget.frame_bytes_max()),
                "limits.memory",
            ),
            counted(
                "read_bytes",
                (self.budget.reads().bytes(), self.budget.reads().bytes_max()),
                "limits.memory",
            ),
        ];
        let share = |share: Share| {
            let bytes = (self.budget.used(share), self.budget.limit(share));
            let key = if share == Share::RequestUnits { "fixed" } else { "limits.memory" };
            counted(share.name(), bytes, key)
        };
        all.extend(Share::ALL.map(share));
        all
    }
}

impl Relief for Resources {
    /// What waits for this client is more than all may have together: room is made, by closing others or this one (net.I3).
    /// Not here and now: this may be the group's thread, and connections are many.
    fn relieve(self: Arc<Self>, channel: &Channel) {
        {
            let mut uncovered = self.uncovered.lock();
            if uncovered.iter().any(|other| other.id() == channel.id()) {
                return;
            }
            uncovered.push(channel.clone());
            if uncovered.len() > 1 {
                // One at a time: who does it goes on with this one.
                return;
            }
        }
        let resources = self.clone();
        match &self.runtime {
            Some(runtime) => drop(runtime.spawn(async move { resources.cover_all() })),
            None => resources.cover_all(),
        }
    }
}
