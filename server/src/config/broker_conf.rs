//! A RocketMQ `broker.conf` in DLedger mode, taken as it is.
//!
//! It names the peers' Raft addresses only, and gives nodes names (`n0`) instead of numbers: a node's
//! id is its place in `dLegerPeers`, from 1. The members' client addresses are left empty in the
//! founding membership, which must be the same on every node; nodes tell each other theirs.
//!
//! Beyond RocketMQ's keys: `namesrvListenPort`, where this node answers as a NameServer. Several nodes of
//! one host need not set it: the first one there takes the port, the others do without. `singleNode=true`: the group has one
//! voter, the only peer in `dLegerPeers`. `adminListenPort` and `adminFrom=10.0.0.0/8,192.0.2.7`: where operators connect, and
//! from where. `secretFile`: as `secret_file`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::Path;
use std::time::Duration;

use folio_broker::delays::DEFAULT_LEVELS;
use folio_broker::settings::TIMER_DELAY_MAX_S;
use folio_broker::transactions::TransactionSettings;
use folio_raft::config::{DedupConfig, Flush, Retention, Scrub, Timing};
use folio_raft::types::NodeAddress;

use super::bounds::within;
use super::file::{host_of, operators};
use super::secret;
use super::transactions;
use super::values::{
    BROKER_PORT, BadValue, DEFAULT_CLUSTER, DEFAULT_GROUP, Listen, NAMESRV_PORT, NodeConfig, SEGMENT_BYTES,
    bad, default_workers, delay_levels,
};
use crate::net::NetConfig;

/// RocketMQ's `storePathRootDir` when the file has none is in the user's home; ours is said plainly.
const DEFAULT_DATA_DIR: &str = "./store";

/// `folder` is the file's.
pub(super) fn parse(text: &str, folder: &Path) -> Result<NodeConfig, BadValue> {
    let mut keys = Keys::read(text)?;
    let (own_name, peers) = (keys.required("dLegerSelfId")?, peers(&keys.required("dLegerPeers")?)?);
    let own = peers.iter().find(|peer| peer.name == own_name);
    let own = own.ok_or_else(|| bad("dLegerSelfId", format!("{own_name:?} is not among dLegerPeers")))?;
    let broker_name = keys.take("brokerName");
    let group = keys.take("dLegerGroup").or(broker_name).unwrap_or_else(|| DEFAULT_GROUP.to_owned());
    let bind: IpAddr = keys.number("bindAddress")?.unwrap_or(IpAddr::from([0, 0, 0, 0]));
    let at = |port| SocketAddr::new(bind, port);
    let listen = Listen {
        namesrv: at(keys.port("namesrvListenPort")?.unwrap_or(NAMESRV_PORT)),
        broker: at(keys.port("listenPort")?.unwrap_or(BROKER_PORT)),
        raft: at(own.port),
        admin: keys.port("adminListenPort")?.map(at),
        namesrv_optional: true,
    };
    let mut retention = Retention::default();
    if let Some(hours) = keys.number::<i64>("fileReservedTime")? {
        retention.age = Some(Duration::from_secs(within("fileReservedTime", hours)? * 3_600));
    }
    let age = retention.age;
    let segment_bytes = keys.number::<i64>("mappedFileSizeCommitLog")?;
    let segment_bytes = segment_bytes.map(|bytes| within("mappedFileSizeCommitLog", bytes)).transpose()?;
    let admin_from = keys.take("adminFrom").unwrap_or_default();
    let admin_from: Vec<&str> =
        admin_from.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let config = NodeConfig {
        cluster: keys.take("brokerClusterName").unwrap_or_else(|| DEFAULT_CLUSTER.to_owned()),
        group,
        groups: Vec::new(),
        node_id: own.id,
        data_dir: keys.take("storePathRootDir").unwrap_or_else(|| DEFAULT_DATA_DIR.to_owned()).into(),
        host: keys.take("brokerIP1").unwrap_or_else(|| own.host.clone()),
        listen,
        nodes: peers.iter().map(|peer| (peer.id, peer.address())).collect(),
        dial: BTreeMap::new(),
        join: false,
        single_node: keys.flag("singleNode")?,
        segment_bytes: segment_bytes.unwrap_or(SEGMENT_BYTES),
        flush: keys.flush()?,
        retention,
        scrub: Scrub::default(),
        dedup: Some(DedupConfig::default()),
        delay_levels: delay_levels(
            "messageDelayLevel",
            keys.take("messageDelayLevel").as_deref().unwrap_or(DEFAULT_LEVELS),
        )?,
        timer_delay_max_s: match keys.number::<i64>("timerMaxDelaySec")? {
            Some(seconds) => within("timerMaxDelaySec", seconds)?,
            None => TIMER_DELAY_MAX_S,
        },
        pop_retry_v2: keys.flag("enableRetryTopicV2")?,
        checks_message_type: keys.flag("enableTopicMessageTypeCheck")?,
        transactions: keys.transactions(age)?,
        timing: Timing::default(),
        secret: keys
            .take("secretFile")
            .map(|file| secret::read("secretFile", folder, file.as_ref()))
            .transpose()?,
        net: NetConfig { operators: operators("adminFrom", &admin_from)?, ..NetConfig::default() },
        workers: default_workers(),
        ignored: Vec::new(),
    };
    // It is always on here.
    keys.take("enableDLegerCommitLog");
    Ok(NodeConfig { ignored: keys.0.into_keys().collect(), ..config })
}

/// The file's keys; whoever uses one takes it, what is left was ignored.
struct Keys(BTreeMap<String, String>);

impl Keys {
    fn read(text: &str) -> Result<Self, BadValue> {
        let mut keys = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', '!']) {
                continue;
            }
            let Some((key, value)) = line.split_once(['=', ':']) else {
                return Err(bad(format!("line {number}"), format!("{line:?} is not key=value")));
            };
            keys.insert(key.trim().to_owned(), value.trim().to_owned());
        }
        Ok(Self(keys))
    }

    fn take(&mut self, key: &str) -> Option<String> {
        self.0.remove(key).filter(|value| !value.is_empty())
    }

    fn required(&mut self, key: &str) -> Result<String, BadValue> {
        let remedy = "missing: this reads a broker.conf in DLedger mode; a TOML file must end in .toml";
        self.take(key).ok_or_else(|| bad(key, remedy))
    }

    /// A number, or anything else that has one way to be written.
    fn number<N: std::str::FromStr>(&mut self, key: &str) -> Result<Option<N>, BadValue> {
        let Some(value) = self.take(key) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| {
            bad(key, format!("{value:?} is not what it should be: a number in range, or an IP address"))
        })
    }

    fn port(&mut self, key: &str) -> Result<Option<u16>, BadValue> {
        Ok(self.number::<NonZeroU16>(key)?.map(NonZeroU16::get))
    }

    fn flag(&mut self, key: &str) -> Result<bool, BadValue> {
        match self.take(key).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(bad(key, format!("{other:?} is neither true nor false"))),
        }
    }

    fn transactions(&mut self, age_max: Option<Duration>) -> Result<TransactionSettings, BadValue> {
        let mut time = |key| self.take(key).map(|text| transactions::time(key, &text)).transpose();
        let (timeout, interval) = (time("transactionTimeOut")?, time("transactionCheckInterval")?);
        let max = self.number::<i64>("transactionCheckMax")?;
        let max = max.map(|number| transactions::checks("transactionCheckMax", number)).transpose()?;
        let default = TransactionSettings::default();
        Ok(TransactionSettings {
            timeout: timeout.unwrap_or(default.timeout),
            check_interval: interval.unwrap_or(default.check_interval),
            checks_max: max.unwrap_or(default.checks_max),
            age_max,
        })
    }

    fn flush(&mut self) -> Result<Flush, BadValue> {
        match self.take("flushDiskType").as_deref() {
            // RocketMQ's own default is ASYNC_FLUSH; ours is not to lose what was acknowledged.
            None | Some("SYNC_FLUSH") => Ok(Flush::Sync),
            Some("ASYNC_FLUSH") => Ok(Flush::Async),
            Some(other) => {
                Err(bad("flushDiskType", format!("{other:?} is neither SYNC_FLUSH nor ASYNC_FLUSH")))
            }
        }
    }
}

struct Peer {
    id: u64,
    name: String,
    host: String,
    port: u16,
}

impl Peer {
    fn address(&self) -> NodeAddress {
        let raft = format!("{}:{}", self.host, self.port);
        NodeAddress { raft, broker: String::new(), namesrv: String::new() }
    }
}

/// `n0-host:port;n1-host:port`.
fn peers(text: &str) -> Result<Vec<Peer>, BadValue> {
    let parts = text.split(';').map(str::trim).filter(|part| !part.is_empty());
    (1..).zip(parts).map(|(id, part)| peer(id, part)).collect()
}

fn peer(id: u64, text: &str) -> Result<Peer, BadValue> {
    let wrong = || bad("dLegerPeers", format!("{text:?} is not name-host:port"));
    let (name, address) = text.split_once('-').ok_or_else(wrong)?;
    let host = host_of(address).ok_or_else(wrong)?;
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).ok_or_else(wrong)?;
    Ok(Peer { id, name: name.to_owned(), host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::super::bounds::OF_BROKER_CONF;
    use super::*;

    const STOCK: &str = "
brokerClusterName = RaftCluster
brokerName=RaftNode00
listenPort=30911
namesrvAddr=127.0.0.1:9876
storePathRootDir=/tmp/rmqstore/node00
enableDLegerCommitLog=true
dLegerGroup=RaftNode00
dLegerPeers=n0-127.0.0.1:20911;n1-127.0.0.1:20912;n2-127.0.0.1:20913
## must be unique
dLegerSelfId=n1
sendMessageThreadPoolNums=16
";

    #[test]
    fn a_stock_dledger_configuration_is_taken_as_it_is() {
        let config = parse(STOCK, Path::new("")).expect("it is RocketMQ's own sample");
        assert_eq!((config.group.as_str(), config.cluster.as_str()), ("RaftNode00", "RaftCluster"));
        assert_eq!((config.node_id, config.host.as_str()), (2, "127.0.0.1"));
        assert_eq!((config.listen.broker.port(), config.listen.raft.port()), (30911, 20912));
        assert!(config.listen.broker.ip().is_unspecified() && config.listen.namesrv_optional);
        assert_eq!(config.nodes.values().map(|node| node.raft.as_str()).next_back(), Some("127.0.0.1:20913"));
        assert_eq!(config.flush, Flush::Sync);
        assert_eq!(config.ignored, ["namesrvAddr", "sendMessageThreadPoolNums"]);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        let key =
            |text: &str| parse(text, Path::new("")).map_or_else(|error| error.key, |config| config.group);
        assert_eq!(key(&STOCK.replace("dLegerSelfId=n1", "dLegerSelfId=n7")), "dLegerSelfId");
        assert_eq!(key(&STOCK.replace("n1-127.0.0.1:20912", "n1:20912")), "dLegerPeers");
        assert_eq!(key(&STOCK.replace("30911", "eleven")), "listenPort");
        assert_eq!(key("listenPort=1"), "dLegerSelfId");
        assert_eq!(key(&format!("{STOCK}singleNode=yes")), "singleNode");
        assert_eq!(key("what"), "line 1");
    }

    #[test]
    fn config_i1_every_number_has_a_range() {
        let error = |line: &str| parse(&format!("{STOCK}{line}"), Path::new("")).map(drop).expect_err(line);
        for range in &OF_BROKER_CONF {
            for wrong in [-1, range.min as i64 - 1, range.max as i64 + 1, i64::MAX] {
                let error = error(&format!("{}={wrong}", range.key));
                assert!(
                    error.key == range.key && error.message.contains("must be between"),
                    "{wrong}: {error:?}"
                );
            }
        }
        for key in ["listenPort", "namesrvListenPort", "adminListenPort"] {
            for wrong in ["0", "65536", "-1"] {
                assert_eq!(error(&format!("{key}={wrong}")).key, key, "{wrong}");
            }
        }
    }

    #[test]
    fn operators_have_a_port_and_networks() {
        let config =
            parse(&format!("{STOCK}adminListenPort=30919\nadminFrom=10.0.0.0/8, 192.0.2.7\n"), Path::new(""))
                .expect("right");
        assert_eq!(config.listen.admin, Some(([0, 0, 0, 0], 30_919).into()));
        assert_eq!(config.net.operators.len(), 4);
        let wrong =
            parse(&format!("{STOCK}adminFrom=ten\n"), Path::new("")).map(drop).expect_err("no network");
        assert_eq!(wrong.key, "adminFrom");
    }
}
