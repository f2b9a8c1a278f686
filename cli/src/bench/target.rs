//! Where to send: routes, making the topic, and what the server says about durability.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use folio_protocol::body::{self, SubscriptionGroupConfig, TopicRouteData};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::flags::PermissionBits;
use folio_protocol::frame::Frame;
use folio_protocol::header::{CreateTopicHeader, GetRouteHeader, NoHeader};
use folio_protocol::names;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::Client;

/// What a NameServer or broker may take to answer: one that is paused must not hold the others up.
const PATIENCE: Duration = Duration::from_secs(1);
/// After this long without an answer the next NameServer is asked as well.
const HEDGE_AFTER: Duration = Duration::from_millis(100);
/// Making a topic waits for a majority's disks.
const CREATE_PATIENCE: Duration = Duration::from_secs(10);
/// How often, and how long apart, a new topic's route is asked for: 5 s in all.
const ROUTE_TRIES: usize = 50;
const ROUTE_PAUSE: Duration = Duration::from_millis(100);
/// Queues of a topic made here, RocketMQ's `defaultTopicQueueNums`.
const QUEUES: u32 = 8;
/// The id of the broker that leads.
const LEADER: i64 = 0;

/// One broker, its leader's address and its queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) broker: String,
    pub(super) address: String,
    pub(super) queues: u32,
}

/// Which of a topic's queues are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Those that may be written.
    Send,
    /// Those that may be read.
    Pull,
}

/// Asks NameServers about one topic.
pub(super) struct Directory {
    namesrvs: Vec<String>,
    topic: String,
    purpose: Purpose,
    queues: Option<u32>,
    next: usize,
}

impl Directory {
    pub(super) fn new(namesrvs: Vec<String>, topic: &str, purpose: Purpose, queues: Option<u32>) -> Self {
        Self { namesrvs, topic: topic.to_owned(), purpose, queues, next: 0 }
    }

    /// The topic's brokers, the topic made first if it is missing and meant to be sent to.
    pub(super) async fn prepare(&mut self) -> Result<Vec<Target>> {
        match (self.lookup().await?, self.purpose) {
            (Some(targets), _) => Ok(targets),
            (None, Purpose::Send) => self.create().await,
            (None, Purpose::Pull) => {
                bail!(
                    "there is no topic {}: send to it first, or create it with `folio topic create`",
                    self.topic
                )
            }
        }
    }

    /// The topic's brokers as any NameServer knows them, or none if there is no such topic.
    pub(super) async fn lookup(&mut self) -> Result<Option<Vec<Target>>> {
        let topic = self.topic.clone();
        let Some(route) = self.route(&topic).await? else { return Ok(None) };
        let targets = targets(&route, self.purpose, self.queues);
        if targets.is_empty() {
            let wanted = if self.purpose == Purpose::Send { "written" } else { "read" };
            bail!("topic {} has no queue that may be {wanted} on a broker with a leader", self.topic);
        }
        Ok(Some(targets))
    }

    async fn route(&mut self, topic: &str) -> Result<Option<TopicRouteData>> {
        let header = GetRouteHeader { topic: topic.into(), accept_standard_json_only: Some(true) };
        let answer =
            self.ask(&Frame::request(RequestCode::GetRouteInfoByTopic, &header, Bytes::new())).await?;
        if answer.code == ResponseCode::TopicNotExist.code() {
            return Ok(None);
        }
        Ok(Some(body::decode(&accepted(answer, "route")?.body)?))
    }

    async fn create(&mut self) -> Result<Vec<Target>> {
        let queues = self.queues.unwrap_or(QUEUES);
        let header = CreateTopicHeader::new(self.topic.as_str(), queues, PermissionBits::READ_WRITE);
        for address in self.leaders().await? {
            let frame = Frame::request(RequestCode::UpdateAndCreateTopic, &header, Bytes::new());
            let made = Client::connect(&address).await?.ask(frame, CREATE_PATIENCE).await;
            made.with_context(|| format!("cannot create topic {}", self.topic))?;
        }
        for _ in 0..ROUTE_TRIES {
            if let Ok(Some(targets)) = self.lookup().await {
                return Ok(targets);
            }
            sleep(ROUTE_PAUSE).await;
        }
        bail!("topic {} was created, but no NameServer has a route to it yet", self.topic)
    }

    /// The leaders of all brokers that make topics. Not asked for as cluster info: Apache's NameServer writes
    /// that with keys that are no JSON, and has no switch for it as it has for routes.
    async fn leaders(&mut self) -> Result<Vec<String>> {
        let route = self.route(names::AUTO_CREATE_TOPIC).await?.unwrap_or_default();
        let leaders: Vec<String> = route
            .broker_datas
            .iter()
            .filter_map(|broker| broker.broker_addrs.get(&LEADER).cloned())
            .collect();
        if leaders.is_empty() {
            bail!("the NameServer at {} knows no broker with a leader", self.namesrvs.join(";"));
        }
        Ok(leaders)
    }

    /// Lets the group pull on every broker. A server that makes groups by itself may refuse; it is asked
    /// to pull then all the same.
    pub(super) async fn allow_group(&mut self, group: &str) -> Result<()> {
        let config =
            SubscriptionGroupConfig { group_name: group.to_owned(), ..SubscriptionGroupConfig::default() };
        let config = body::encode(&config)?;
        for address in self.leaders().await? {
            let request = RequestCode::UpdateAndCreateSubscriptionGroup;
            let frame = Frame::request(request, &NoHeader, config.clone());
            Client::connect(&address).await?.call(frame, CREATE_PATIENCE).await?;
        }
        Ok(())
    }

    /// The first answer. A NameServer that fails, or says nothing for a moment, is not waited for: the next one is
    /// asked beside it, and the one that answers is the first to be asked next time.
    async fn ask(&mut self, request: &Frame) -> Result<Frame> {
        let count = self.namesrvs.len();
        let mut order = (self.next..self.next + count).map(|at| at % count);
        let (mut asked, mut failure) = (JoinSet::new(), anyhow!("no address given"));
        loop {
            if let Some(at) = order.next() {
                let (address, request) = (self.namesrvs[at].clone(), request.clone());
                asked.spawn(async move { (at, ask_one(&address, request).await) });
            } else if asked.is_empty() {
                return Err(failure);
            }
            let moment = if order.len() > 0 { HEDGE_AFTER } else { 2 * PATIENCE };
            match tokio::time::timeout(moment, asked.join_next()).await {
                Ok(Some(Ok((at, Ok(answer))))) => {
                    self.next = at;
                    return Ok(answer);
                }
                Ok(Some(Ok((_, Err(error))))) => failure = error,
                Ok(Some(Err(_)) | None) | Err(_) => {}
            }
        }
    }
}

async fn ask_one(address: &str, request: Frame) -> Result<Frame> {
    let asked = async {
        let mut client = tokio::time::timeout(PATIENCE, Client::connect(address)).await??;
        client.call(request, PATIENCE).await
    };
    asked.await.with_context(|| format!("no NameServer at {address}"))
}

fn accepted(answer: Frame, what: &str) -> Result<Frame> {
    if answer.code == ResponseCode::Success.code() {
        return Ok(answer);
    }
    let name = ResponseCode::from_code(answer.code).map_or("unknown code", ResponseCode::name);
    bail!(
        "asked for {what}, the NameServer answered {name} ({}): {}",
        answer.code,
        answer.remark.unwrap_or_default()
    )
}

fn targets(route: &TopicRouteData, purpose: Purpose, wanted: Option<u32>) -> Vec<Target> {
    let queues = route.queue_datas.iter().filter_map(|data| {
        let perm = PermissionBits(data.perm);
        let queues = match purpose {
            Purpose::Send if perm.is_writable() => data.write_queue_nums,
            Purpose::Pull if perm.is_readable() => data.read_queue_nums,
            Purpose::Send | Purpose::Pull => 0,
        };
        let queues = queues.min(wanted.unwrap_or(u32::MAX));
        let broker = route.broker_datas.iter().find(|broker| broker.broker_name == data.broker_name)?;
        let address = broker.broker_addrs.get(&LEADER)?.clone();
        (queues > 0).then(|| Target { broker: data.broker_name.clone(), address, queues })
    });
    queues.collect()
}

/// What an acknowledgement means there, in the server's own words; `unknown` if it does not say.
pub(super) async fn durability(address: &str) -> String {
    if let Ok(status) = crate::status::ask_status(address, None).await {
        return promised(&status.flush, status.voters.len());
    }
    let asked = async {
        let request = Frame::request(RequestCode::GetBrokerConfig, &NoHeader, Bytes::new());
        Client::connect(address).await?.ask(request, PATIENCE).await
    };
    let config = asked.await.map(|answer| String::from_utf8_lossy(&answer.body).into_owned());
    configured(&config.unwrap_or_default())
}

/// What a FolioMQ node promises.
fn promised(flush: &str, voters: usize) -> String {
    let how = if flush == "fdatasync" { "fdatasync" } else { "in memory" };
    format!("{how} on {} of {voters} nodes", voters / 2 + 1)
}

/// What the configuration of another server says.
fn configured(config: &str) -> String {
    let value = |key: &str| {
        let lines = config.lines().filter_map(|line| line.split_once('='));
        lines.map(|(name, value)| (name.trim(), value.trim())).find(|(name, _)| *name == key)
    };
    let keys = ["flushDiskType", "brokerRole", "enableDLegerCommitLog"];
    let parts: Vec<String> =
        keys.into_iter().filter_map(value).map(|(name, value)| format!("{name}={value}")).collect();
    if parts.is_empty() { "unknown".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::BytesMut;
    use folio_protocol::body::{BrokerData, QueueData};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn route() -> TopicRouteData {
        let broker = |name: &str, id| BrokerData {
            broker_name: name.to_owned(),
            broker_addrs: BTreeMap::from([(id, format!("{name}:10911"))]),
            ..BrokerData::default()
        };
        let queues = |name: &str, perm| QueueData {
            broker_name: name.to_owned(),
            read_queue_nums: 8,
            write_queue_nums: 4,
            perm,
            ..QueueData::default()
        };
        TopicRouteData {
            queue_datas: vec![queues("a", 6), queues("b", 4), queues("headless", 6), queues("gone", 6)],
            broker_datas: vec![broker("a", 0), broker("b", 0), broker("headless", 1)],
            ..TopicRouteData::default()
        }
    }

    fn target(broker: &str, queues: u32) -> Target {
        Target { broker: broker.to_owned(), address: format!("{broker}:10911"), queues }
    }

    #[test]
    fn only_brokers_with_a_leader_and_the_permission_are_targets() {
        assert_eq!(targets(&route(), Purpose::Send, None), [target("a", 4)]);
        assert_eq!(targets(&route(), Purpose::Send, Some(2)), [target("a", 2)]);
        assert_eq!(targets(&route(), Purpose::Pull, None), [target("a", 8), target("b", 8)]);
    }

    #[test]
    fn durability_is_what_the_server_says_and_nothing_else() {
        assert_eq!(configured(""), "unknown");
        let config = "brokerRole=ASYNC_MASTER\nflushDiskType=SYNC_FLUSH\n";
        assert_eq!(configured(config), "flushDiskType=SYNC_FLUSH, brokerRole=ASYNC_MASTER");
        assert_eq!(promised("fdatasync", 3), "fdatasync on 2 of 3 nodes");
        assert_eq!(promised("asynchronous", 5), "in memory on 3 of 5 nodes");
    }

    /// Answers every request with "no such topic".
    async fn answering(listener: TcpListener) {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut bytes = BytesMut::new();
            while socket.read_buf(&mut bytes).await.unwrap() > 0 {
                while let Some(asked) = Frame::decode(&mut bytes).unwrap() {
                    let answer =
                        Frame::response(asked.opaque, asked.serialization, ResponseCode::TopicNotExist);
                    let mut out = BytesMut::new();
                    answer.encode(&mut out).unwrap();
                    socket.write_all(&out).await.unwrap();
                }
            }
        }
    }

    #[tokio::test]
    async fn a_name_server_that_hangs_is_not_waited_for() {
        // Connections to it are made by the kernel and never taken.
        let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let well = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
        let mut directory = Directory::new(vec![address(&hung), address(&well)], "t", Purpose::Pull, None);
        tokio::spawn(answering(well));
        assert!(directory.lookup().await.unwrap().is_none());
        assert_eq!(directory.next, 1, "the one that hangs comes last from now on");
        let asked = std::time::Instant::now();
        assert!(directory.lookup().await.unwrap().is_none());
        assert!(asked.elapsed() < PATIENCE, "{:?}", asked.elapsed());
    }

    #[tokio::test]
    async fn a_missing_name_server_is_named() {
        // Port 1 is nobody's.
        let mut directory = Directory::new(vec!["127.0.0.1:1".to_owned()], "t", Purpose::Send, None);
        let error = format!("{:#}", directory.prepare().await.unwrap_err());
        assert!(error.starts_with("no NameServer at 127.0.0.1:1: cannot connect"), "{error}");
    }
}
