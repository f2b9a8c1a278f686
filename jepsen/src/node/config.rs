//! What a node is created as, and the configuration that says so.

use std::path::Path;

use crate::addresses::Addresses;
use crate::needs::Needs;
use crate::network::Network;

/// The group all nodes belong to.
pub(super) const GROUP: &str = "broker-a";
/// The file with the cluster's secret, beside a node's configuration. These runs have no intruder: it may be known.
pub(super) const SECRET_FILE: &str = "secret";
/// Nodes that may join in the life of a cluster, one after the other.
const GUESTS_MAX: u64 = 100;

/// What the log keeps of what is old.
fn keep_size(expire: bool, needs: Needs) -> &'static str {
    match (expire, needs) {
        // A small disk has room for little.
        (_, Needs { ext4: true, .. }) => "keep_size = \"16MiB\"\n",
        // Several segments, so that what lacks the first of them can be told from what is whole.
        (_, Needs { retention: true, .. }) => "keep_size = \"48MiB\"\n",
        (true, _) => "keep_size = \"16MiB\"\n",
        (false, _) => "",
    }
}

/// What a node is created as.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    /// First port of its cluster.
    pub base_port: u16,
    /// Its place among the ports, from 1: a founder's is its id.
    pub place: u64,
    /// Places there are for members.
    pub places: u64,
    /// The group's members now, each with its place.
    pub members: &'a [(u64, u64)],
    /// It may found a group of itself alone, by this key.
    pub single_node: bool,
    /// It waits to be added instead of being a founder.
    pub join: bool,
    /// It drops old segments.
    pub expire: bool,
    /// What the nemeses that will act on it need.
    pub needs: Needs,
    /// Where it runs.
    pub network: &'a Network,
}

impl Plan<'_> {
    /// The configuration of node `id`, which listens at these addresses and keeps its data there.
    pub(super) fn of_node(&self, id: u64, addresses: &Addresses, data_dir: &Path) -> String {
        let Plan { base_port, place, places, members, join, single_node, expire, needs, network } = *self;
        let Addresses { namesrv, broker, raft } = addresses;
        let operators =
            network.operator().map(|from| format!("admin_from = [{from:?}]\n")).unwrap_or_default();
        let mut text = format!(
            "cluster = \"jepsen\"\ngroup = \"{GROUP}\"\nnode_id = {}\ndata_dir = {:?}\n\
             secret_file = \"{SECRET_FILE}\"\njoin = {join}\n\n\
             [listen]\nnamesrv = \"{namesrv}\"\nbroker = \"{broker}\"\nraft = \"{raft}\"\n{operators}\n\
             # Small segments, so that a run crosses many of them.\n\
             [log]\nsegment_size = \"16MiB\"\nkeep_hours = 0\n{}\n\
             # Short waits, so that a run sees many of them.\n\
             [timers]\nlevels = \"1s 2s 4s 8s 1h\"\n\n\
             [transactions]\ntimeout = \"3s\"\ncheck_interval = \"1s\"\nchecks_max = 10000\n",
            id,
            data_dir.display().to_string(),
            keep_size(expire, needs),
        );
        for (id, place) in members {
            let Addresses { namesrv, broker, raft } = network.addresses(base_port, *place);
            text.push_str(&format!(
                "\n[[nodes]]\nid = {id}\nraft = \"{raft}\"\nbroker = \"{broker}\"\nnamesrv = \"{namesrv}\"\n"
            ));
        }
        if needs.scrub {
            text = text.replacen("[log]\n", "[log]\nscrub_rate = \"64MiB\"\nscrub_hours = 0\n", 1);
        }
        if needs.little_memory {
            text.push_str("\n[limits]\nmemory = \"128MiB\"\n");
        }
        if needs.links && network.has_relays() {
            text.push_str("\n[dial]\n");
            // Whoever joins later has the place after the founders', one at a time.
            for peer in (1..=places + GUESTS_MAX).filter(|peer| *peer != id) {
                let relay = Addresses::relay(base_port, place, peer.min(places + 1));
                text.push_str(&format!("{peer} = \"{relay}\"\n"));
            }
        }
        if single_node {
            text = text.replacen("join = false\n", "join = false\nsingle_node = true\n", 1);
        }
        if join {
            let host = network.host(place);
            text = text.replacen("join = true\n", &format!("join = true\nhost = \"{host}\"\n"), 1);
        }
        text
    }
}
