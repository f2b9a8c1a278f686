//! Clients and their groups: heartbeat 34, unregister 35, member list 38, notification 40, check 46.
//!
//! When a group changes, its members are told at once, but for the one that has just joined: that one a moment later.

use std::sync::Arc;
use std::time::Duration;

use folio_broker::clients::{Duplicate, Notice, Software, limits};
use folio_protocol::body::{self, BodyError, CheckClientConfig, ConsumerList, HeartbeatData};
use folio_protocol::code::ResponseCode;
use folio_protocol::header::{
    GetConsumerListHeader, Header, HeartbeatResponseHeader, UnregisterClientHeader,
};
use folio_protocol::limits::BODY_OBJECTS_MAX;
use folio_raft::log_rate_limiter::LogRateLimiter;

use crate::broker::Broker;
use crate::error::ServerError;
use crate::gossip;
use crate::request::Request;

/// Objects in a question for one subscription.
const CHECK_OBJECTS_MAX: usize = 16;
/// When a client that has joined a group is told that the group changed. Clients rebalance at most once a second.
const NEWCOMER_TOLD_AFTER: Duration = Duration::from_secs(1);

/// 34. Answers when the client's consumer groups exist, so that its first pull finds them.
pub(crate) fn heartbeat(broker: &Arc<Broker>, request: Request) {
    let Some(channel) = request.channel() else {
        return request.reply.fail(ServerError::Internal("a heartbeat was forwarded".to_owned()));
    };
    let data = match decode_heartbeat(&request.frame.body) {
        Ok(data) => data,
        Err(error) => return request.reply.fail(error),
    };
    let groups = data.consumer_data_set.iter().map(|consumer| consumer.group_name.clone());
    let missing: Vec<String> = groups.filter(|group| !broker.has_group(group)).collect();
    let software = Software { language: request.frame.language.name(), version: request.frame.version };
    let heard = match broker.clients.heartbeat(channel, software, data) {
        Ok(heard) => heard,
        Err(full) => return request.reply.fail(ServerError::from(full)),
    };
    Notice::tell(heard.notices);
    tell_later(heard.later);
    heard.duplicates.iter().for_each(warn);
    let header = HeartbeatResponseHeader { is_support_v2: true, is_sub_change: heard.sub_changed };
    if missing.is_empty() {
        return request.reply.ok(&header, "");
    }
    let broker = broker.clone();
    tokio::spawn(async move {
        for group in missing {
            if let Err(error) = broker.ensure_group(&group).await {
                static LINES: LogRateLimiter = LogRateLimiter::new();
                if let Some(left_out) = LINES.admit() {
                    tracing::warn!(group, remote = %request.remote, left_out, "consumer group not created: {error}");
                }
                return request.reply.fail(error);
            }
        }
        request.reply.ok(&header, "");
    });
}

fn decode_heartbeat(bytes: &[u8]) -> Result<HeartbeatData, ServerError> {
    limits::check_length(bytes)?;
    let data = body::decode_request(bytes, BODY_OBJECTS_MAX)
        .map_err(|BodyError { reason }| ServerError::Body(reason))?;
    limits::check(&data)?;
    Ok(data)
}

/// 35. Answers when no living node lists the client any more (`gossip.I1`).
pub(crate) fn unregister(broker: &Arc<Broker>, request: Request) {
    let header = match UnregisterClientHeader::from_ext(&request.frame.ext) {
        Ok(header) => header,
        Err(error) => return request.reply.fail(error),
    };
    if let Some(channel) = request.channel() {
        let (producer, consumer) = (header.producer_group.as_deref(), header.consumer_group.as_deref());
        Notice::tell(broker.clients.unregister(channel.id(), &header.client_id, producer, consumer));
    }
    let broker = broker.clone();
    tokio::spawn(async move {
        gossip::tell_all(&broker).await;
        request.reply.done();
    });
}

/// 38.
pub(crate) fn consumer_list(broker: &Arc<Broker>, request: Request) {
    let group = match GetConsumerListHeader::from_ext(&request.frame.ext) {
        Ok(header) => header.consumer_group,
        Err(error) => return request.reply.fail(error),
    };
    let consumer_id_list = broker.clients.members(&group);
    if consumer_id_list.is_empty() {
        let remark = format!("no consumer for this group, {group}");
        return request.reply.error(ResponseCode::SystemError, remark);
    }
    match body::encode(&ConsumerList { consumer_id_list }) {
        Ok(body) => request.reply.body(body),
        Err(BodyError { reason }) => request.reply.fail(ServerError::Internal(reason)),
    }
}

/// 46. Clients ask it for what is not a tag expression.
pub(crate) fn check_config(_broker: &Arc<Broker>, request: Request) {
    let check: CheckClientConfig = match body::decode_request(&request.frame.body, CHECK_OBJECTS_MAX) {
        Ok(check) => check,
        Err(BodyError { reason }) => return request.reply.fail(ServerError::Body(reason)),
    };
    if check.subscription_data.is_tag() {
        return request.reply.done();
    }
    let kind = check.subscription_data.expression_type.unwrap_or_default();
    let remark = format!("The broker does not support consumer to filter message by {kind}");
    request.reply.error(ResponseCode::SystemError, remark);
}

fn tell_later(notices: Vec<Notice>) {
    if notices.is_empty() {
        return;
    }
    tokio::spawn(async move {
        tokio::time::sleep(NEWCOMER_TOLD_AFTER).await;
        Notice::tell(notices.into_iter().filter(Notice::is_open).collect());
    });
}

fn warn(duplicate: &Duplicate) {
    static LINES: LogRateLimiter = LogRateLimiter::new();
    let Some(left_out) = LINES.admit() else { return };
    let Duplicate { group, client_id, addresses: [one, other] } = duplicate;
    tracing::warn!(
        left_out,
        group,
        client_id,
        %one,
        %other,
        "two processes use one client id, so both consume the same queues: give each an instanceName or a clientIP of its own"
    );
}
