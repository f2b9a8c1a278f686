//! The addresses of a node: its ports follow from the cluster's first one and its place.

/// Ports between two nodes' brokers: a broker's neighbours stay free for its other listeners.
const PORTS_PER_NODE: u16 = 10;

/// A node's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// NameServer.
    pub namesrv: String,
    /// Broker.
    pub broker: String,
    /// Raft.
    pub raft: String,
}

impl Addresses {
    /// Addresses of node `id` (from 1) on this machine's loopback, as [`Self::at`].
    #[must_use]
    pub fn of(base_port: u16, id: u64) -> Self {
        Self::at("127.0.0.1", base_port, id)
    }

    /// Addresses of node `id` (from 1) at this host: NameServers `B, B+1, ...`, then broker and Raft
    /// from `B+10*id` on, the distances those of `folio cluster`.
    #[must_use]
    pub fn at(host: &str, base_port: u16, id: u64) -> Self {
        let id = id as u16;
        let at = |port: u16| format!("{host}:{port}");
        let broker = base_port + PORTS_PER_NODE * id;
        Self { namesrv: at(base_port + id - 1), broker: at(broker), raft: at(broker + 4) }
    }

    /// Where node `from` dials node `to` when there are relays: among the ports of `from`, after
    /// its own.
    #[must_use]
    pub fn relay(base_port: u16, from: u64, to: u64) -> String {
        format!("127.0.0.1:{}", base_port + PORTS_PER_NODE * from as u16 + 4 + to as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_do_not_share_ports() {
        let all: Vec<String> = (1..=4)
            .map(|id| Addresses::of(20_000, id))
            .flat_map(|addresses| [addresses.namesrv, addresses.broker, addresses.raft])
            .chain((1..=4).flat_map(|from| (1..=4).map(move |to| Addresses::relay(20_000, from, to))))
            .collect();
        let unique: std::collections::HashSet<&String> = all.iter().collect();
        assert_eq!(unique.len(), all.len(), "{all:?}");
    }
}
