//! What clients may use of a node, and how much of it they do.

use std::sync::Arc;

use super::NetConfig;
use super::budget::{Budget, Share};
use super::connections::Connections;

/// The limits that all connections of a node share.
#[derive(Debug)]
pub struct Resources {
    budget: Arc<Budget>,
    connections: Connections,
}

/// How much of one resource is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
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
        Arc::new(Self { budget: Budget::new(config.memory_bytes), connections: Connections::new(config) })
    }

    /// The bytes that clients make the node hold.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Use and limit of each resource.
    pub fn usage(&self) -> Vec<Usage> {
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
