//! Clients and their groups: heartbeat 34, unregister 35, member list 38, check 46. A change of a group is notified with 40, see
//! `net/client.rs`.

use std::sync::Arc;

use folio_broker::clients::{Software, limits};
use folio_broker::error::BrokerError;
use folio_broker::registrations::Registered;
use folio_protocol::body::{CheckClientConfig, ConsumerList, HeartbeatData};
use folio_protocol::code::ResponseCode;
use folio_protocol::header::{
    GetConsumerListHeader, Header, HeartbeatResponseHeader, UnregisterClientHeader,
};
use folio_protocol::limits::BODY_OBJECTS_MAX;
use folio_raft::log_rate_limiter::LogRateLimiter;

use super::answers::{decode, json};
use crate::error::ServerError;
use crate::remoting::Remoting;
use crate::request::Request;

/// Objects in a question for one subscription.
const CHECK_OBJECTS_MAX: usize = 16;

/// 34. Answers when the client's consumer groups exist, so that its first pull finds them.
pub(crate) fn heartbeat(remoting: &Arc<Remoting>, request: Request) {
    let Registered { sub_changed, missing } = match register(remoting, &request) {
        Ok(registered) => registered,
        Err(error) => return request.reply.fail(error),
    };
    let header = HeartbeatResponseHeader { is_support_v2: true, is_sub_change: sub_changed };
    if missing.is_empty() {
        return request.reply.ok(&header, "");
    }
    let broker = remoting.broker.clone();
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

fn register(remoting: &Remoting, request: &Request) -> Result<Registered, ServerError> {
    let Some(channel) = request.channel() else {
        return Err(ServerError::Internal("a heartbeat was forwarded".to_owned()));
    };
    let bytes = &request.frame.body;
    limits::check_length(bytes)?;
    let data: HeartbeatData = decode(bytes, BODY_OBJECTS_MAX)?;
    limits::check(&data)?;
    let software = Software { language: request.frame.language.name(), version: request.frame.version };
    Ok(remoting.broker.heartbeat(channel, software, data)?)
}

/// 35. Answers when no living node lists the client any more (`gossip.I1`).
pub(crate) fn unregister(remoting: &Arc<Remoting>, request: Request) {
    let header = match UnregisterClientHeader::from_ext(&request.frame.ext) {
        Ok(header) => header,
        Err(error) => return request.reply.fail(error),
    };
    let broker = remoting.broker.clone();
    if let Some(channel) = request.channel() {
        let (producer, consumer) = (header.producer_group.as_deref(), header.consumer_group.as_deref());
        broker.unregister(channel.id(), &header.client_id, producer, consumer);
    }
    tokio::spawn(async move {
        broker.all_have_heard().await;
        request.reply.done();
    });
}

/// 38.
pub(crate) fn consumer_list(remoting: &Arc<Remoting>, request: Request) {
    let group = match GetConsumerListHeader::from_ext(&request.frame.ext) {
        Ok(header) => header.consumer_group,
        Err(error) => return request.reply.fail(error),
    };
    let consumer_id_list = remoting.broker.clients.members(&group);
    if consumer_id_list.is_empty() {
        let remark = format!("no consumer for this group, {group}");
        return request.reply.error(ResponseCode::SystemError, remark);
    }
    json(request, &ConsumerList { consumer_id_list });
}

/// 46. Clients ask it for what is not a tag expression.
pub(crate) fn check_config(_remoting: &Arc<Remoting>, request: Request) {
    let check: CheckClientConfig = match decode(&request.frame.body, CHECK_OBJECTS_MAX) {
        Ok(check) => check,
        Err(error) => return request.reply.fail(error),
    };
    if check.subscription_data.is_tag() {
        return request.reply.done();
    }
    let kind = check.subscription_data.expression_type.unwrap_or_default();
    request.reply.fail(BrokerError::FilterNotSupported(kind));
}
