//! Offsets: a consumer's (14, 15) and a queue's (29, 30, 31, 32).

use std::sync::Arc;

use bytes::Bytes;
use folio_broker::error::BrokerError;
use folio_broker::offsets::{Bound, OffsetQuestion, Progress};
use folio_protocol::header::{
    GetEarliestStoreTimeHeader, GetMaxOffsetHeader, GetMinOffsetHeader, Header, OffsetResponseHeader,
    QueryConsumerOffsetHeader, SearchOffsetHeader, TimestampResponseHeader, UpdateConsumerOffsetHeader,
};
use tokio::time::Instant;

use super::creating::create_and_serve;
use crate::pending::OFFSET_PATIENCE;
use crate::remoting::Remoting;
use crate::request::Request;

/// 14: where a group goes on in a queue.
pub(crate) fn query(remoting: &Arc<Remoting>, request: Request) {
    let header = match QueryConsumerOffsetHeader::from_ext(&request.frame.ext) {
        Ok(header) => header,
        Err(error) => return request.reply.fail(error),
    };
    let broker = remoting.broker.clone();
    // Another node's have ended there.
    let turns = (!request.is_forwarded()).then(|| remoting.forwards.turns.clone());
    answer_offset(request, async move {
        let question = OffsetQuestion {
            group: header.consumer_group.to_string(),
            topic: header.topic.to_string(),
            queue_id: header.queue_id,
            begins_if_young: header.set_zero_if_not_found != Some(false),
        };
        broker.consumer_offset(&question, turns.as_deref(), Instant::now() + OFFSET_PATIENCE).await
    });
}

/// 15: a group's progress. Answered when it is applied; a oneway commit is gathered with others.
pub(crate) fn update(remoting: &Arc<Remoting>, request: Request) {
    let progress = match UpdateConsumerOffsetHeader::from_ext(&request.frame.ext) {
        Ok(header) => Progress {
            group: header.consumer_group.to_string(),
            topic: header.topic.to_string(),
            queue_id: header.queue_id,
            offset: header.commit_offset,
        },
        Err(error) => return request.reply.fail(error),
    };
    match remoting.broker.check_progress(progress) {
        Ok(commit) => {
            let Request { order, reply, .. } = request;
            let is_urgent = !reply.is_oneway();
            let done = Box::new(move |outcome: Result<(), BrokerError>| match outcome {
                Ok(()) => reply.done(),
                Err(error) => reply.fail(error),
            });
            remoting.broker.commit_offset(commit, order, is_urgent, done);
        }
        Err(BrokerError::GroupNotExist(group)) => create_and_serve(remoting, group, request),
        Err(error) => request.reply.fail(error),
    }
}

/// 30: the offset after a queue's last message that consumers may see.
pub(crate) fn max(remoting: &Arc<Remoting>, request: Request) {
    match GetMaxOffsetHeader::from_ext(&request.frame.ext) {
        Ok(header) => {
            let broker = remoting.broker.clone();
            answer_offset(request, async move {
                Ok(broker.queue_bounds(&header.topic, header.queue_id).await?.1)
            });
        }
        Err(error) => request.reply.fail(error),
    }
}

/// 31: the offset of a queue's first message.
pub(crate) fn min(remoting: &Arc<Remoting>, request: Request) {
    match GetMinOffsetHeader::from_ext(&request.frame.ext) {
        Ok(header) => {
            let broker = remoting.broker.clone();
            answer_offset(request, async move {
                Ok(broker.queue_bounds(&header.topic, header.queue_id).await?.0)
            });
        }
        Err(error) => request.reply.fail(error),
    }
}

/// 29: the offset at a point in time.
pub(crate) fn search_by_time(remoting: &Arc<Remoting>, request: Request) {
    match SearchOffsetHeader::from_ext(&request.frame.ext) {
        Ok(header) => {
            let broker = remoting.broker.clone();
            let bound = if header.is_upper() { Bound::Upper } else { Bound::Lower };
            answer_offset(request, async move {
                broker.offset_at(header.topic.to_string(), header.queue_id, header.timestamp, bound).await
            });
        }
        Err(error) => request.reply.fail(error),
    }
}

/// 32: when a queue's first message was stored; -1 if there is none.
pub(crate) fn earliest_time(remoting: &Arc<Remoting>, request: Request) {
    let header = match GetEarliestStoreTimeHeader::from_ext(&request.frame.ext) {
        Ok(header) => header,
        Err(error) => return request.reply.fail(error),
    };
    let broker = remoting.broker.clone();
    tokio::spawn(async move {
        match broker.earliest_time(header.topic.to_string(), header.queue_id).await {
            Ok(timestamp) => request.reply.ok(&TimestampResponseHeader { timestamp }, Bytes::new()),
            Err(error) => request.reply.fail(error),
        }
    });
}

fn answer_offset(request: Request, call: impl Future<Output = Result<u64, BrokerError>> + Send + 'static) {
    tokio::spawn(async move {
        match call.await {
            Ok(offset) => request.reply.ok(&OffsetResponseHeader { offset: offset as i64 }, Bytes::new()),
            Err(error) => request.reply.fail(error),
        }
    });
}
