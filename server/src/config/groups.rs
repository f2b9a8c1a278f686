//! Further groups that a node hosts: a list of tables beside the keys of the first group.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use folio_protocol::names;
use folio_raft::types::NodeAddress;
use serde::Deserialize;

use super::bad_value::{BadValue, bad};
use super::host_port::host_of;

/// Groups of one node. Each has a log, threads and an election of its own; a group for each topic or queue is not what groups
/// are for.
pub const GROUPS_MAX: usize = 4;
/// Names in the data directory that are no group's.
const RESERVED: [&str; 2] = ["identity", "LOCK"];

/// A `[[groups]]` table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupTable {
    name: String,
    listen: SocketAddr,
    brokers: BTreeMap<String, String>,
    join: Option<bool>,
}

/// A group besides the node's first one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FurtherGroup {
    /// Its name, RocketMQ's `brokerName`.
    pub name: String,
    /// Its broker port on this node.
    pub listen: SocketAddr,
    /// The broker address of each member at the group's birth, by the node's id.
    pub brokers: BTreeMap<u64, String>,
    /// Wait to be added to a running group.
    pub join: bool,
}

impl GroupTable {
    /// `join`: the node's, for a table that does not say it.
    pub(super) fn into_group(self, join: bool) -> Result<FurtherGroup, BadValue> {
        let mut brokers = BTreeMap::new();
        for (id, address) in self.brokers {
            let key = || key(&self.name, &format!("brokers.{id}"));
            let node: u64 =
                id.parse().map_err(|_| bad(key(), "the key must be a node's id, as in [[nodes]]"))?;
            if host_of(&address).is_none() {
                return Err(bad(key(), format!("{address:?} is not host:port")));
            }
            brokers.insert(node, address);
        }
        let join = self.join.unwrap_or(join);
        Ok(FurtherGroup { name: self.name, listen: self.listen, brokers, join })
    }
}

impl FurtherGroup {
    fn check(&self, nodes: &BTreeMap<u64, NodeAddress>, node_id: u64) -> Result<(), BadValue> {
        if self.listen.port() == 0 {
            let text = format!("{} has no port: it must be between 1 and 65535", self.listen);
            return Err(bad(key(&self.name, "listen"), text));
        }
        if let Some(stranger) = self.brokers.keys().find(|id| !nodes.contains_key(id)) {
            let text = format!("node {stranger} is not in [[nodes]], which says where its Raft port is");
            return Err(bad(key(&self.name, "brokers"), text));
        }
        if !self.join && !self.brokers.contains_key(&node_id) {
            let text = format!("this node, id {node_id}, is not among them");
            return Err(bad(key(&self.name, "brokers"), text));
        }
        Ok(())
    }

    /// The members at the group's birth: nodes of `nodes`, with the group's broker addresses.
    pub(super) fn members(&self, nodes: &BTreeMap<u64, NodeAddress>) -> BTreeMap<u64, NodeAddress> {
        let member = |(id, broker): (&u64, &String)| {
            let NodeAddress { raft, namesrv, .. } = nodes.get(id)?.clone();
            Some((*id, NodeAddress { raft, broker: broker.clone(), namesrv }))
        };
        self.brokers.iter().filter_map(member).collect()
    }
}

/// A key of the table of that name.
fn key(name: &str, key: &str) -> String {
    format!("groups ({name}): {key}")
}

/// What names of groups have to do with each other, and groups with nodes.
pub(super) fn check(
    first: &str,
    further: &[FurtherGroup],
    nodes: &BTreeMap<u64, NodeAddress>,
    node_id: u64,
) -> Result<(), BadValue> {
    check_name("group", first)?;
    if further.len() >= GROUPS_MAX {
        let text =
            format!("a node hosts at most {GROUPS_MAX} groups, `group` included: {}", 1 + further.len());
        return Err(bad("groups", text));
    }
    let mut names = BTreeSet::from([first]);
    for group in further {
        check_name("groups: name", &group.name)?;
        if !names.insert(&group.name) {
            return Err(bad("groups: name", format!("{:?} is the name of two groups", group.name)));
        }
        group.check(nodes, node_id)?;
    }
    Ok(())
}

fn check_name(key: &str, name: &str) -> Result<(), BadValue> {
    names::check_group(name).map_err(|error| bad(key, error.to_string()))?;
    if RESERVED.contains(&name) {
        return Err(bad(key, format!("{name:?} is the name of a file of the data directory")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{EXAMPLE, NodeConfig};
    use super::*;

    const SECOND: &str = "\n[[groups]]\nname = 'broker-b'\nlisten = '0.0.0.0:10921'\n\
        brokers = { 1 = '10.0.0.1:10921', 2 = '10.0.0.2:10921', 3 = '10.0.0.3:10921' }\n";

    fn parse(tables: &str) -> Result<NodeConfig, String> {
        NodeConfig::parse(Path::new("n.toml"), &format!("{EXAMPLE}{tables}"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_second_group_shares_the_raft_port_and_has_a_broker_port_and_a_directory_of_its_own() {
        let config = parse(SECOND).expect("it is right");
        let [first, second] = &config.group_configs()[..] else { panic!("two groups") };
        assert_eq!((first.group.as_str(), second.group.as_str()), ("broker-a", "broker-b"));
        assert_eq!(first.data_dir, Path::new("/var/lib/folio/broker-a"));
        assert_eq!(second.data_dir, Path::new("/var/lib/folio/broker-b"));
        assert_eq!((second.listen, second.nodes.len()), (first.listen, 3));
        for (id, node) in &second.nodes {
            assert_eq!((&node.raft, &node.namesrv), (&first.nodes[id].raft, &first.nodes[id].namesrv));
            assert_eq!(node.broker, format!("10.0.0.{id}:10921"));
        }
        assert_eq!(config.broker_listeners(), [config.listen.broker, ([0, 0, 0, 0], 10_921).into()]);
        assert_eq!(parse("").expect("one group").group_configs().len(), 1);
    }

    #[test]
    fn a_group_of_some_of_the_nodes_or_one_that_grows_is_right() {
        let some = SECOND.replace(", 3 = '10.0.0.3:10921'", "");
        let config = parse(&some).expect("nodes 1 and 2");
        assert_eq!(config.group_configs()[1].nodes.len(), 2);
        let joins = SECOND.replace("1 = '10.0.0.1:10921', ", "").replace("listen", "join = true\nlisten");
        let second = &parse(&joins).expect("added later").group_configs()[1];
        assert!(second.join && second.nodes[&1].broker == "10.0.0.1:10921", "{second:?}");
    }

    #[test]
    fn impossible_groups_are_named_with_key_and_remedy() {
        let wrong = |from: &str, to: &str| parse(&SECOND.replace(from, to)).expect_err(to);
        for (from, to, start) in [
            ("broker-b", "broker-a", "groups: name: \"broker-a\" is the name of two groups"),
            ("broker-b", "a b", "groups: name: "),
            ("broker-b", "LOCK", "groups: name: \"LOCK\" is the name of a file"),
            ("0.0.0.0:10921", "0.0.0.0:0", "groups (broker-b): listen: 0.0.0.0:0 has no port"),
            ("1 = '10.0.0.1:10921', ", "", "groups (broker-b): brokers: this node, id 1, is not among them"),
            ("3 = '10.0.0.3:10921'", "4 = 'x:1'", "groups (broker-b): brokers: node 4 is not in [[nodes]]"),
            ("10.0.0.2:10921", "10.0.0.2", "groups (broker-b): brokers.2: \"10.0.0.2\" is not host:port"),
            ("2 = ", "two = ", "groups (broker-b): brokers.two: the key must be a node's id"),
        ] {
            let error = wrong(from, to);
            assert!(error.starts_with(&format!("n.toml: {start}")), "{error}");
        }
        let many: String = (0..GROUPS_MAX).map(|n| SECOND.replace("broker-b", &format!("g{n}"))).collect();
        let error = parse(&many).expect_err("too many");
        assert!(error.starts_with("n.toml: groups: a node hosts at most 4 groups"), "{error}");
        let error = parse(&SECOND.replace("name", "nmae")).expect_err("misspelt");
        assert!(error.contains("nmae"), "{error}");
    }
}
