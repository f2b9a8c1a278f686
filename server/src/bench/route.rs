//! Where a topic's queues are.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use folio_protocol::body::{self, TopicRouteData};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;
use folio_protocol::header::{CreateTopicHeader, GetRouteHeader};
use folio_protocol::names;

use crate::client::Client;

/// How long one node may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Queues of a topic that has to be created.
const QUEUES: u32 = 8;

/// The leader's address and the queues of a topic there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) leader: String,
    pub(super) broker: String,
    pub(super) write_queues: u32,
    pub(super) read_queues: u32,
}

/// Asks the NameServers, in turn.
pub(super) async fn find(namesrv: &str, topic: &str) -> Result<Option<Route>> {
    let mut last = None;
    for address in namesrv.split([',', ';']).map(str::trim).filter(|address| !address.is_empty()) {
        match ask(address, topic).await {
            Ok(route) => return Ok(route),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error).with_context(|| format!("no NameServer of {namesrv} answers")),
        None => bail!("--namesrv is empty"),
    }
}

async fn ask(address: &str, topic: &str) -> Result<Option<Route>> {
    let header = GetRouteHeader { topic: topic.into(), accept_standard_json_only: Some(true) };
    let request = Frame::request(RequestCode::GetRouteInfoByTopic, &header, Bytes::new());
    let response = Client::connect(address).await?.call(request, PATIENCE).await?;
    if response.code == ResponseCode::TopicNotExist.code() {
        return Ok(None);
    }
    if response.code != ResponseCode::Success.code() {
        bail!("{address}: {}", response.remark.unwrap_or_default());
    }
    let route: TopicRouteData =
        body::decode(&response.body).with_context(|| format!("route from {address}"))?;
    Ok(leader_of(&route))
}

fn leader_of(route: &TopicRouteData) -> Option<Route> {
    route.queue_datas.iter().find_map(|queues| {
        let broker = route.broker_datas.iter().find(|broker| broker.broker_name == queues.broker_name)?;
        let leader = broker.broker_addrs.get(&0)?;
        Some(Route {
            leader: leader.clone(),
            broker: queues.broker_name.clone(),
            write_queues: queues.write_queue_nums,
            read_queues: queues.read_queue_nums,
        })
    })
}

/// The route of a topic that is created if it is missing.
pub(super) async fn find_or_create(namesrv: &str, topic: &str) -> Result<Route> {
    if let Some(route) = find(namesrv, topic).await? {
        return Ok(route);
    }
    names::check_topic(topic)?;
    let Some(template) = find(namesrv, names::AUTO_CREATE_TOPIC).await? else {
        bail!("topic {topic} does not exist and {namesrv} names no broker that could create it");
    };
    let header = CreateTopicHeader {
        topic: topic.into(),
        default_topic: Some(names::AUTO_CREATE_TOPIC.into()),
        read_queue_nums: QUEUES,
        write_queue_nums: QUEUES,
        perm: 6,
        topic_filter_type: Some("SINGLE_TAG".to_owned()),
        topic_sys_flag: 0,
        order: false,
        attributes: None,
        force: None,
    };
    let request = Frame::request(RequestCode::UpdateAndCreateTopic, &header, Bytes::new());
    Client::connect(&template.leader).await?.ask(request, PATIENCE).await?;
    for _ in 0..50 {
        if let Some(route) = find(namesrv, topic).await? {
            return Ok(route);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("topic {topic} was created at {} but no NameServer of {namesrv} knows it", template.leader)
}

/// What an acknowledgement means there, in the server's own words.
pub(super) async fn durability(leader: &str) -> String {
    match crate::cli::ask_status(leader).await {
        Ok(status) => match status.flush.as_str() {
            "fdatasync" => {
                format!("fdatasync on {} of {} nodes", status.voters.len() / 2 + 1, status.voters.len())
            }
            _ => format!("in memory on {} of {} nodes", status.voters.len() / 2 + 1, status.voters.len()),
        },
        Err(_) => "unknown: the server does not say".to_owned(),
    }
}
