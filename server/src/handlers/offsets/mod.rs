//! Offsets: a consumer's (14, 15) and a queue's (29, 30, 31, 32).
//!
//! A consumer's offsets are replicated like messages: a commit is answered when it is applied, a new leader
//! goes on with them. Not here: how commits are gathered ([`commits`]).

mod commits;

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use folio_engine::queues::{QueuesError, Unit};
use folio_protocol::header::{
    GetEarliestStoreTimeHeader, GetMaxOffsetHeader, GetMinOffsetHeader, Header, OffsetResponseHeader,
    QueryConsumerOffsetHeader, SearchOffsetHeader, TimestampResponseHeader, UpdateConsumerOffsetHeader,
};
use folio_protocol::message::MessageView;
use folio_state::OffsetCommit;
use tokio::time::Instant;

pub(crate) use self::commits::Commits;

use crate::broker::Broker;
use crate::error::ServerError;
use crate::forward::OFFSET_PATIENCE;
use crate::groups;
use crate::handlers::absent;
use crate::request::Request;

/// A queue whose first message is at most this far behind the end of the log is young: a group without an
/// offset starts at its first message. Upstream's measure is 40 % of the machine's memory; a fixed number
/// makes replicas agree.
const YOUNG_BYTES: u64 = 4 << 30;

/// Pause before a unit that is about to be mended is looked at again.
const MEND_PAUSE: Duration = Duration::from_millis(50);

/// 14: where a group goes on in a queue.
///
/// A consumer that goes on from an old offset is given everything since then again. So commits that came
/// before the question are applied first, and this node proves that it leads and has applied everything. For the same
/// reason it takes its time before it says that it cannot tell (forward.I3).
pub(crate) fn query(broker: &Arc<Broker>, request: Request) {
    let broker = broker.clone();
    drop(tokio::spawn(async move {
        let deadline = Instant::now() + OFFSET_PATIENCE;
        if let Ok(header) = QueryConsumerOffsetHeader::from_ext(&request.frame.ext)
            && let Ok(queue) = queue_number(header.queue_id)
        {
            let key = (header.consumer_group.to_string(), header.topic.to_string(), queue);
            broker.state.commits.applied(&key, deadline).await;
        }
        loop {
            if let Err(error) = broker.group.confirm().await {
                return request.reply.refuse(error);
            }
            match consumer_offset(&broker, &request) {
                Ok(offset) => return answer(request, offset),
                Err(ServerError::Unreadable(_)) if Instant::now() < deadline => {}
                Err(error) => return request.reply.fail(error),
            }
            tokio::time::sleep(MEND_PAUSE).await;
        }
    }));
}

fn consumer_offset(broker: &Broker, request: &Request) -> Result<u64, ServerError> {
    let header = QueryConsumerOffsetHeader::from_ext(&request.frame.ext)?;
    let queue = queue_number(header.queue_id)?;
    if let Some(offset) = broker.group.state().offset(&header.consumer_group, &header.topic, queue) {
        return Ok(offset);
    }
    let begin = if header.set_zero_if_not_found == Some(false) {
        None
    } else {
        begin_if_young(broker, &header.topic, queue)?
    };
    begin.ok_or_else(|| ServerError::NotFound("Not found, maybe this group consumer boot first".to_owned()))
}

/// The first offset of a queue that still has its first message, if that is not long ago. The first after its topic was
/// deleted counts: who consumes the topic of that name now wants all of it. A queue that was only deleted begins there, too.
fn begin_if_young(broker: &Broker, topic: &str, queue: u32) -> Result<Option<u64>, ServerError> {
    let begin = broker.group.state().min_offsets().get(topic, queue);
    let first = match broker.group.queues().units(topic, queue, begin, 1) {
        Err(QueuesError::Trimmed { .. }) => return Ok(None),
        first => first.map_err(|error| ServerError::Unreadable(error.to_string()))?,
    };
    let end = broker.group.log().state().next_position;
    let is_young = match first.first() {
        Some(unit) => end.saturating_sub(unit.position) <= YOUNG_BYTES,
        None => begin > 0,
    };
    Ok(is_young.then_some(begin))
}

/// 15: a group's progress. Answered when it is applied; a oneway commit is gathered with others.
pub(crate) fn update(broker: &Arc<Broker>, request: Request) {
    match checked_commit(broker, &request) {
        Ok(commit) => commits::commit(broker, commit, request.order, request.reply),
        Err(ServerError::GroupNotExist(group)) => groups::create_and_serve(broker, group, request),
        Err(error) => request.reply.fail(error),
    }
}

fn checked_commit(broker: &Broker, request: &Request) -> Result<OffsetCommit, ServerError> {
    let header = UpdateConsumerOffsetHeader::from_ext(&request.frame.ext)?;
    if broker.group.state().group(&header.consumer_group).is_none() {
        return Err(ServerError::GroupNotExist(header.consumer_group.to_string()));
    }
    let Some(topic) = broker.topic(&header.topic) else {
        return Err(ServerError::TopicNotExist(header.topic.to_string()));
    };
    let queue = queue_number(header.queue_id)?;
    if queue >= topic.queue_count() {
        return Err(ServerError::InvalidParameter(format!("topic[{}] has no queue {queue}", header.topic)));
    }
    let offset = u64::try_from(header.commit_offset).map_err(|_| {
        ServerError::InvalidParameter(format!("the offset {} is negative", header.commit_offset))
    })?;
    let (group, topic) = (header.consumer_group.to_string(), header.topic.to_string());
    Ok(OffsetCommit { group, topic, queue, offset })
}

/// 30: the offset after a queue's last message that consumers may see.
pub(crate) fn max(broker: &Arc<Broker>, request: Request) {
    match GetMaxOffsetHeader::from_ext(&request.frame.ext) {
        Ok(header) => absent::surely(broker, request, move |broker, request| {
            answer(request, bounds(broker, &header.topic, header.queue_id).1)
        }),
        Err(error) => request.reply.fail(error),
    }
}

/// 31: the offset of a queue's first message.
pub(crate) fn min(broker: &Arc<Broker>, request: Request) {
    match GetMinOffsetHeader::from_ext(&request.frame.ext) {
        Ok(header) => absent::surely(broker, request, move |broker, request| {
            answer(request, bounds(broker, &header.topic, header.queue_id).0)
        }),
        Err(error) => request.reply.fail(error),
    }
}

/// 29: the offset at a point in time. Reads old messages, hence apart from the runtime's threads.
pub(crate) fn search_by_time(broker: &Arc<Broker>, request: Request) {
    let header = match SearchOffsetHeader::from_ext(&request.frame.ext) {
        Ok(header) => header,
        Err(error) => return request.reply.fail(error),
    };
    absent::surely(broker, request, move |broker, request| {
        let broker = broker.clone();
        drop(tokio::task::spawn_blocking(move || match offset_at(&broker, &header) {
            Ok(offset) => answer(request, offset),
            Err(error) => request.reply.fail(error),
        }));
    });
}

/// LOWER: the first message stored at or after the time, or the offset after the last. UPPER: the last one
/// stored at or before it, or the first message.
fn offset_at(broker: &Broker, header: &SearchOffsetHeader) -> Result<u64, ServerError> {
    let (min, _) = bounds(broker, &header.topic, header.queue_id);
    let mut failed = None;
    let order = |unit| match stored_at(broker, unit) {
        Ok(time) if header.is_upper() && time == header.timestamp => Ordering::Less,
        Ok(time) => time.cmp(&header.timestamp),
        Err(error) => {
            failed = Some(error);
            Ordering::Equal
        }
    };
    let queue = queue_number(header.queue_id)?;
    let found = broker.group.queues().search(&header.topic, queue, order);
    let found = found.map_err(|error| ServerError::Internal(error.to_string()))?.unwrap_or(0);
    match failed {
        Some(error) => Err(error),
        None if header.is_upper() => Ok(found.saturating_sub(1).max(min)),
        None => Ok(found),
    }
}

/// 32: when a queue's first message was stored; -1 if there is none.
pub(crate) fn earliest_time(broker: &Arc<Broker>, request: Request) {
    let header = match GetEarliestStoreTimeHeader::from_ext(&request.frame.ext) {
        Ok(header) => header,
        Err(error) => return request.reply.fail(error),
    };
    absent::surely(broker, request, move |broker, request| {
        let broker = broker.clone();
        drop(tokio::task::spawn_blocking(move || match first_time(&broker, &header) {
            Ok(timestamp) => request.reply.ok(&TimestampResponseHeader { timestamp }, Bytes::new()),
            Err(error) => request.reply.fail(error),
        }));
    });
}

fn first_time(broker: &Broker, header: &GetEarliestStoreTimeHeader) -> Result<i64, ServerError> {
    let (min, _) = bounds(broker, &header.topic, header.queue_id);
    let units = broker.group.queues().units(&header.topic, queue_number(header.queue_id)?, min, 1);
    let units = units.map_err(|error| ServerError::Internal(error.to_string()))?;
    units.first().map_or(Ok(-1), |unit| stored_at(broker, *unit))
}

/// When a message was stored, ms.
fn stored_at(broker: &Broker, unit: Unit) -> Result<i64, ServerError> {
    let unreadable = |why: String| ServerError::Internal(format!("the message at {}: {why}", unit.position));
    let bytes = broker.group.log().bytes(unit.position, unit.size as usize);
    let bytes = bytes.map_err(|error| unreadable(error.to_string()))?;
    let message = MessageView::parse(&bytes).map_err(|error| unreadable(error.to_string()))?;
    Ok(message.store_timestamp())
}

/// A queue's bounds; a queue without messages, or that does not exist, is empty at 0.
fn bounds(broker: &Broker, topic: &str, queue_id: i32) -> (u64, u64) {
    let queue = u32::try_from(queue_id).ok();
    queue.and_then(|queue| broker.group.queues().bounds(topic, queue)).unwrap_or((0, 0))
}

fn queue_number(queue_id: i32) -> Result<u32, ServerError> {
    u32::try_from(queue_id)
        .map_err(|_| ServerError::InvalidParameter(format!("queueId[{queue_id}] is illegal")))
}

fn answer(request: Request, offset: u64) {
    request.reply.ok(&OffsetResponseHeader { offset: offset as i64 }, Bytes::new());
}
