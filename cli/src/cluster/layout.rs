//! Ports, directories and configurations of a cluster on one machine.
//!
//! Ports of node i (from 1), with `--base-port B` and without:
//!
//! | | `B` given | not given |
//! |---|---|---|
//! | NameServer | B + i - 1 | 9876, 9877, 9878, ... |
//! | broker | B + 10 i | 10911, 10921, 10931, ... |
//! | Raft | B + 10 i + 4 | 10915, 10925, 10935, ... |
//!
//! Files: `cluster` (what it was made with), `secret` (what the nodes prove to each other), `node-<i>/node.toml`, `node-<i>/folio.log`, `node-<i>/data`.

use std::fmt;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use folio_raft::secret::ClusterSecret;
use folio_server::config::{
    BROKER_PORT, ByteSize, DEFAULT_CLUSTER, DEFAULT_GROUP, NAMESRV_PORT, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
};
use folio_server::private_files;
use serde::{Deserialize, Serialize};

use super::launch::Launch;

/// What the data directory was made with.
const FILE: &str = "cluster";
const HOST: &str = "127.0.0.1";
const NODES: u64 = 3;
/// NameServers are B to B+8, the first broker is B+10.
const NODES_MAX: u64 = 9;
const PORTS_PER_NODE: u16 = 10;
const RAFT_ABOVE_BROKER: u16 = 4;
/// Three nodes on one disk, each segment reserved in full: smaller than a real node's.
const SEGMENT_BYTES: u64 = 256 << 20;
/// Nobody but its owner reads it.
const SECRET_MODE: u32 = 0o600;
/// From here on the system gives ports to outgoing connections.
const EPHEMERAL_PORT: u16 = 32_768;

/// What a data directory was made with; the nodes' replicated membership carries the ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    nodes: u64,
    base_port: Option<u16>,
    segment_bytes: u64,
}

/// Where each node of the cluster is.
pub(super) struct Layout {
    dir: PathBuf,
    made: Made,
}

/// One node's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At {
    pub(super) namesrv: String,
    pub(super) broker: String,
    pub(super) raft: String,
}

impl Layout {
    /// Makes or finds the data directory and writes the nodes' configurations.
    pub(super) fn prepare(launch: &Launch) -> Result<Self> {
        let dir = &launch.data;
        private_files::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        // Nodes get absolute paths: an error of theirs then names a place one can find.
        let dir = fs::canonicalize(dir).with_context(|| format!("cannot use {}", dir.display()))?;
        let file = dir.join(FILE);
        let made = if file.exists() { Made::found(&file, launch)? } else { Made::new(launch)? };
        let layout = Self { dir, made };
        layout.make_secret().with_context(|| format!("cannot write {}", layout.secret().display()))?;
        private_files::tighten(&layout.dir, &layout.names());
        for id in layout.ids() {
            layout.write_config(id)?;
        }
        private_files::write(&file, &toml::to_string(&made)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(layout)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u64> + use<> {
        1..=self.made.nodes
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn at(&self, id: u64) -> At {
        // Checked when it was made: at most nine nodes, and the last port exists.
        let below = (id - 1) as u16;
        let (namesrv, broker) = match self.made.base_port {
            Some(base) => (base, base + PORTS_PER_NODE),
            None => (NAMESRV_PORT, BROKER_PORT),
        };
        let broker = broker + PORTS_PER_NODE * below;
        let at = |port: u16| format!("{HOST}:{port}");
        At { namesrv: at(namesrv + below), broker: at(broker), raft: at(broker + RAFT_ABOVE_BROKER) }
    }

    /// The first node's NameServer.
    pub(super) fn namesrv(&self) -> String {
        self.at(1).namesrv
    }

    fn node_dir(&self, id: u64) -> PathBuf {
        self.dir.join(node_name(id))
    }

    /// What the directory holds of the cluster.
    fn names(&self) -> Vec<String> {
        self.ids().map(node_name).chain([FILE.to_owned()]).collect()
    }

    pub(super) fn config(&self, id: u64) -> PathBuf {
        self.node_dir(id).join("node.toml")
    }

    pub(super) fn log(&self, id: u64) -> PathBuf {
        self.node_dir(id).join("folio.log")
    }

    fn secret(&self) -> PathBuf {
        self.dir.join("secret")
    }

    /// Makes the cluster's secret once; it is whole as soon as it has its name.
    fn make_secret(&self) -> io::Result<()> {
        if self.secret().try_exists()? {
            return Ok(());
        }
        let unnamed = self.dir.join("secret.new");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(SECRET_MODE).open(&unnamed)?;
        // One that an earlier start has left keeps its mode.
        file.set_permissions(Permissions::from_mode(SECRET_MODE))?;
        file.write_all(ClusterSecret::random_text()?.as_bytes())?;
        file.sync_all()?;
        fs::rename(unnamed, self.secret())
    }

    fn write_config(&self, id: u64) -> Result<()> {
        let dir = self.node_dir(id);
        private_files::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let file = self.config(id);
        private_files::write(&file, &self.node_toml(id)?)
            .with_context(|| format!("cannot write {}", file.display()))
    }

    fn node_toml(&self, id: u64) -> Result<String> {
        let table = |at: At| {
            toml::Table::from_iter([
                ("namesrv".to_owned(), at.namesrv.into()),
                ("broker".to_owned(), at.broker.into()),
                ("raft".to_owned(), at.raft.into()),
            ])
        };
        let nodes = self.ids().map(|id| {
            let mut node = table(self.at(id));
            node.insert("id".to_owned(), id.cast_signed().into());
            toml::Value::Table(node)
        });
        let log = toml::Table::from_iter([(
            "segment_size".to_owned(),
            ByteSize(self.made.segment_bytes).to_string().into(),
        )]);
        let data = self.node_dir(id).join("data");
        let data = utf8(&data)?;
        let config = toml::Table::from_iter([
            ("cluster".to_owned(), DEFAULT_CLUSTER.into()),
            ("group".to_owned(), DEFAULT_GROUP.into()),
            ("node_id".to_owned(), id.cast_signed().into()),
            ("single_node".to_owned(), (self.made.nodes == 1).into()),
            ("data_dir".to_owned(), data.into()),
            ("host".to_owned(), HOST.into()),
            ("secret_file".to_owned(), utf8(&self.secret())?.into()),
            ("listen".to_owned(), table(self.at(id)).into()),
            ("log".to_owned(), log.into()),
            ("nodes".to_owned(), nodes.collect::<Vec<_>>().into()),
        ]);
        Ok(format!("# Written by `folio cluster` at every start.\n{}", toml::to_string(&config)?))
    }
}

fn node_name(id: u64) -> String {
    format!("node-{id}")
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

impl Made {
    fn new(launch: &Launch) -> Result<Self> {
        let nodes = launch.nodes.unwrap_or(NODES);
        let odd = nodes % 2 == 1 && nodes <= NODES_MAX;
        ensure!(
            odd,
            "--nodes {nodes}: must be 1, 3, 5, 7 or 9; an even number survives no more than one fewer"
        );
        if let Some(base) = launch.base_port {
            let last =
                u32::from(base) + u32::from(PORTS_PER_NODE) * nodes as u32 + u32::from(RAFT_ABOVE_BROKER);
            ensure!(
                base > 0 && last <= u32::from(u16::MAX),
                "--base-port {base}: the last port would be {last}"
            );
            if last >= u32::from(EPHEMERAL_PORT) {
                super::program::tell(format_args!(
                    "folio: --base-port {base}: ports from {EPHEMERAL_PORT} on are also given to outgoing \
                     connections and may be in use at some start"
                ));
            }
        }
        let segment_bytes = launch.segment_size.map_or(SEGMENT_BYTES, |size| size.0);
        // Here, before the directory says that it was made with it.
        ensure!(
            (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes),
            "--segment-size {}: must be between {} and {}",
            ByteSize(segment_bytes),
            ByteSize(SEGMENT_BYTES_MIN),
            ByteSize(SEGMENT_BYTES_MAX)
        );
        Ok(Self { nodes, base_port: launch.base_port, segment_bytes })
    }

    /// A data directory that exists decides; flags may only agree.
    fn found(file: &Path, launch: &Launch) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let made: Self = toml::from_str(&text).with_context(|| format!("{} is damaged", file.display()))?;
        ensure!(
            (1..=NODES_MAX).contains(&made.nodes) && made.base_port.is_none_or(|base| base < 65_000),
            "{} is damaged: {made:?}",
            file.display()
        );
        let differs = |flag: &str, was: String| -> Result<Self> {
            let dir = file.parent().unwrap_or(file).display();
            bail!("{dir} was made with {flag} {was}: leave {flag} out, or point --data at another directory")
        };
        if launch.nodes.is_some_and(|nodes| nodes != made.nodes) {
            return differs("--nodes", made.nodes.to_string());
        }
        if launch.base_port.is_some() && launch.base_port != made.base_port {
            return differs("--base-port", made.base_port.map_or("none".to_owned(), |base| base.to_string()));
        }
        if launch.segment_size.is_some_and(|size| size.0 != made.segment_bytes) {
            return differs("--segment-size", ByteSize(made.segment_bytes).to_string());
        }
        Ok(made)
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "FolioMQ: {} nodes, data in {}", self.made.nodes, self.dir.display())?;
        for id in self.ids() {
            let At { namesrv, broker, .. } = self.at(id);
            let log = self.log(id);
            write!(out, "\n  node {id}: NameServer {namesrv}, broker {broker}, log {}", log.display())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use folio_server::config::NodeConfig;

    fn launch(dir: &Path) -> Launch {
        Launch {
            nodes: None,
            data: dir.join("folio-data"),
            base_port: None,
            segment_size: None,
            restart: false,
            log: None,
        }
    }

    #[test]
    fn the_default_ports_are_rocketmqs_and_below_the_ephemeral_range() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(&launch(dir.path())).unwrap();
        let third = layout.at(3);
        assert_eq!(
            [third.namesrv, third.broker, third.raft],
            ["127.0.0.1:9878", "127.0.0.1:10931", "127.0.0.1:10935"]
        );
        let config = NodeConfig::read(&layout.config(3)).unwrap();
        assert_eq!((config.node_id, config.nodes.len()), (3, 3));
        assert_eq!(config.advertised(), config.nodes[&3]);
    }

    #[test]
    fn the_nodes_share_a_secret_that_is_made_once_and_is_their_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(&launch(dir.path())).unwrap();
        let secret = fs::read(layout.secret()).unwrap();
        assert_eq!(fs::metadata(layout.secret()).unwrap().permissions().mode() & 0o777, 0o600);
        // One that an earlier start began is not believed, nor is its mode.
        fs::write(layout.dir().join("secret.new"), "half").unwrap();
        let again = Layout::prepare(&launch(dir.path())).unwrap();
        assert!(fs::read(again.secret()).unwrap() == secret, "another one");
        assert!(NodeConfig::read(&again.config(2)).unwrap().secret.is_some());
    }

    #[test]
    fn a_data_directory_keeps_what_it_was_made_with() {
        let dir = tempfile::tempdir().unwrap();
        let first = Launch { base_port: Some(20_000), nodes: Some(5), ..launch(dir.path()) };
        assert_eq!(Layout::prepare(&first).unwrap().at(5).raft, "127.0.0.1:20054");
        assert_eq!(Layout::prepare(&launch(dir.path())).unwrap().at(5).namesrv, "127.0.0.1:20004");
        let other = Launch { base_port: Some(21_000), ..launch(dir.path()) };
        let error = Layout::prepare(&other).map(drop).unwrap_err().to_string();
        assert!(error.contains("was made with --base-port 20000"), "{error}");
    }

    #[test]
    fn even_numbers_and_ports_out_of_range_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for wrong in [
            Launch { nodes: Some(2), ..launch(dir.path()) },
            Launch { nodes: Some(11), ..launch(dir.path()) },
            Launch { base_port: Some(65_500), nodes: Some(5), ..launch(dir.path()) },
            Launch { segment_size: Some(ByteSize(1_024)), ..launch(dir.path()) },
        ] {
            assert!(Layout::prepare(&wrong).is_err(), "{wrong:?}");
        }
        assert!(Layout::prepare(&launch(dir.path())).is_ok(), "what was refused has left nothing behind");
    }
}
