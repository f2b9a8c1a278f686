//! What one node is told before it starts: TOML, or a RocketMQ `broker.conf` taken as it is.
//!
//! Not here: anything that is replicated; topics and groups are made by admin commands.

mod bad_value;
mod bounds;
mod broker_conf;
mod file;
mod groups;
mod host_port;
mod secret;
mod size;
mod transactions;
mod values;

use std::path::{Path, PathBuf};

pub use file::EXAMPLE;
pub use groups::{FurtherGroup, GROUPS_MAX};
pub use size::ByteSize;
use values::BadValue;
pub use values::{
    BROKER_PORT, DEDUP_KEYS_MAX, DEFAULT_CLUSTER, DEFAULT_GROUP, Listen, NAMESRV_PORT, NodeConfig, RAFT_PORT,
    SEGMENT_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
};

/// What is wrong with a configuration. Refused: the operator can mend it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not TOML, or has an unknown key.
    #[error("{}: {message}", .file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Line, key and what was expected.
        message: String,
    },
    /// A key has an impossible value.
    #[error("{}: {key}: {message}", .file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// What is wrong and what would be right.
        message: String,
    },
}

impl NodeConfig {
    /// Reads a configuration file: TOML by its ending `.toml`, a RocketMQ `broker.conf` otherwise.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| ConfigError::Read { file: file.to_owned(), source })?;
        Self::parse(file, &text)
    }

    fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let value = |BadValue { key, message }| ConfigError::Value { file: file.to_owned(), key, message };
        // Paths in a file are as seen from its folder, wherever the node is started.
        let folder = file.parent().unwrap_or(Path::new(""));
        let config = if file.extension().is_some_and(|ending| ending == "toml") {
            let parsed: file::File = toml::from_str(text).map_err(|error| ConfigError::Syntax {
                file: file.to_owned(),
                message: error.to_string().trim_end().to_owned(),
            })?;
            parsed.into_config(folder).map_err(value)?
        } else {
            broker_conf::parse(text, folder).map_err(value)?
        };
        config.check().map_err(value)?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Network;
    use std::collections::BTreeMap;

    fn parse(name: &str, text: &str) -> Result<NodeConfig, String> {
        NodeConfig::parse(Path::new(name), text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_example_is_a_configuration() {
        let config = parse("example.toml", EXAMPLE).expect("the example is right");
        assert_eq!(config.nodes.len(), 3);
        assert_eq!(config.advertised(), config.nodes[&1]);
        assert_eq!(config.segment_bytes, SEGMENT_BYTES);
    }

    /// The first node of a group that has grown lost its disk, and waited without end for peers that did not say where they are.
    #[test]
    fn a_node_that_joins_says_where_it_is_though_it_does_not_list_itself() {
        let text = "node_id = 2\ndata_dir = \"d\"\njoin = true\nhost = \"10.0.0.2\"\n[[nodes]]\nid = 1\nraft = \"10.0.0.1:1\"\n\
                    broker = \"10.0.0.1:2\"\nnamesrv = \"10.0.0.1:3\"\n";
        let config = parse("n.toml", text).expect("it is right");
        assert_eq!(config.group_config().nodes[&2], config.advertised());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_file() {
        let error = parse("n.toml", &format!("clutser = 'x'\n{EXAMPLE}")).expect_err("misspelt");
        assert!(error.starts_with("n.toml: ") && error.contains("clutser"), "{error}");
    }

    #[test]
    fn the_secrets_file_is_beside_the_configuration_and_its_text_is_not_printed() {
        let dir = tempfile::tempdir().expect("a folder");
        let (file, text) = (dir.path().join("n.toml"), format!("secret_file = 'key'\n{EXAMPLE}"));
        let error = NodeConfig::parse(&file, &text).expect_err("no such file").to_string();
        assert!(error.contains("secret_file") && error.contains("/key"), "{error}");
        let secret = folio_raft::secret::ClusterSecret::random_text().expect("random bytes");
        std::fs::write(dir.path().join("key"), &secret).expect("written");
        let error = NodeConfig::parse(&file, &text).expect_err("others can read it").to_string();
        assert!(error.contains("chmod 600"), "{error}");
        let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(dir.path().join("key"), own).expect("changed");
        let config = NodeConfig::parse(&file, &text).expect("right");
        assert!(config.group_config().secret.is_some());
        let shown = format!("{config:?} {:?}", config.group_config());
        assert!(!shown.contains(secret.trim()), "{shown}");
    }

    #[test]
    fn a_way_to_a_peer_may_be_this_nodes_own() {
        let config = parse("n.toml", &format!("{EXAMPLE}\n[dial]\n2 = 'tunnel:15002'\n")).expect("right");
        assert_eq!(config.group_config().dial, BTreeMap::from([(2, "tunnel:15002".to_owned())]));
        assert_eq!(config.nodes[&2].raft, "10.0.0.2:10915", "what others are told stays");
    }

    #[test]
    fn impossible_values_are_named_with_key_and_remedy() {
        let error =
            parse("n.toml", &EXAMPLE.replace("node_id = 1", "node_id = 9")).expect_err("not a member");
        assert_eq!(error, "n.toml: nodes: this node, id 9, is not among them");
        let text = EXAMPLE.replace("single_node = false", "single_node = true");
        let error = parse("n.toml", &text).expect_err("three nodes");
        assert!(error.starts_with("n.toml: single_node: is for a group of one voter"), "{error}");
        for (line, key) in
            [("2 = '10.0.0.2'", "dial.2"), ("two = 'a:1'", "dial.two"), ("1 = 'a:1'", "dial.1")]
        {
            let error = parse("n.toml", &format!("{EXAMPLE}\n[dial]\n{line}\n")).expect_err(line);
            assert!(error.starts_with(&format!("n.toml: {key}: ")), "{error}");
        }
        let error = parse("n.toml", &EXAMPLE.replace("segment_size = \"1GiB\"", "segment_size = \"1KiB\""))
            .expect_err("too small");
        assert_eq!(
            error,
            "n.toml: log.segment_size: 1KiB is out of range: it must be between 16MiB and 4GiB"
        );
        let error =
            parse("n.toml", &EXAMPLE.replace("segment_size = \"1GiB\"", "segment_size = \"1 moose\""))
                .expect_err("no size");
        assert!(error.contains("segment_size") && error.contains("1 moose"), "{error}");
        let error = parse("n.toml", &EXAMPLE.replace("broker = \"0.0.0.0:10911\"", "broker = \"0.0.0.0:0\""))
            .expect_err("a port of the system's choice");
        assert!(error.starts_with("n.toml: listen.broker: 0.0.0.0:0 has no port"), "{error}");
    }

    #[test]
    fn config_i1_elections_leave_room_for_two_lost_heartbeats() {
        let timing = |min: u64, max: u64, heartbeat: u64| {
            let text = EXAMPLE.replace("election_min_ms = 200", &format!("election_min_ms = {min}"));
            let text = text.replace("election_max_ms = 300", &format!("election_max_ms = {max}"));
            parse("n.toml", &text.replace("heartbeat_ms = 50", &format!("heartbeat_ms = {heartbeat}")))
                .map(drop)
        };
        assert_eq!((timing(200, 300, 66), timing(60_000, 60_000, 20_000)), (Ok(()), Ok(())));
        for (timing, key) in [
            (timing(200, 300, 67), "raft.heartbeat_ms"),
            (timing(200, 300, 0), "raft.heartbeat_ms"),
            (timing(301, 300, 50), "raft.election_min_ms"),
            (timing(200, 60_001, 50), "raft.election_max_ms"),
        ] {
            let error = timing.expect_err(key);
            assert!(error.starts_with(&format!("n.toml: {key}: ")), "{error}");
        }
    }

    #[test]
    fn operators_are_on_this_machine_and_where_the_file_says() {
        let operators = |text: &str| parse("n.toml", text).expect("right").net.operators;
        assert_eq!(operators(EXAMPLE), Network::LOOPBACK);
        let text = EXAMPLE.replace("admin_from = []", "admin_from = [\"10.0.0.0/8\", \"fd00::/8\"]");
        let networks: Vec<String> = operators(&text).iter().map(Network::to_string).collect();
        assert_eq!(networks, ["127.0.0.0/8", "::1/128", "10.0.0.0/8", "fd00::/8"]);
        let text = EXAMPLE.replace("admin_from = []", "admin_from = [\"10.0.0.1/8\"]");
        let error = parse("n.toml", &text).expect_err("bits behind the prefix");
        assert!(error.starts_with("n.toml: listen.admin_from: ") && error.contains("10.0.0.0/8"), "{error}");
        assert_eq!(parse("n.toml", EXAMPLE).expect("right").listen.admin, None);
        let text = EXAMPLE.replace("# admin = ", "admin = ");
        let admin = parse("n.toml", &text).expect("right").listen.admin;
        assert_eq!(admin, Some(([127, 0, 0, 1], 10_919).into()));
    }
}
