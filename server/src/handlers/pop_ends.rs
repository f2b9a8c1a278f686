//! What ends the flight of popped messages: 200051 and 200151 acknowledge, 200053 changes the invisible time. See [`folio_broker::pop`].

use std::sync::Arc;

use bytes::Bytes;
use folio_broker::error::BrokerError;
use folio_broker::pop::Popped;
use folio_protocol::body::{BatchAck, BatchAckMessages};
use folio_protocol::header::{
    AckMessageHeader, ChangeInvisibleTimeHeader, ChangeInvisibleTimeResponseHeader, Header,
};
use folio_protocol::limits::ACKS_MAX;
use folio_protocol::popped::{Handle, Retry};

use super::answers::{decode, when_done};
use crate::error::ServerError;
use crate::remoting::Remoting;
use crate::request::Request;

/// Messages that one request acknowledges at most: all of its batches.
const MESSAGES_MAX: usize = 32 * ACKS_MAX;
/// Acknowledgements of one request that are under way together.
const TOGETHER: usize = 64;

fn handle(text: &str) -> Result<Handle, ServerError> {
    let handle = Handle::parse(text);
    handle.map_err(|error| BrokerError::InvalidParameter(error.to_string()).into())
}

/// 200051: a message was handled.
pub(crate) fn ack(remoting: &Arc<Remoting>, request: Request) {
    let read = AckMessageHeader::from_ext(&request.frame.ext).map_err(ServerError::from);
    let popped = read.and_then(|header| {
        Ok(Popped {
            handle: handle(&header.extra_info)?,
            group: header.consumer_group,
            topic: header.topic,
            queue_id: header.queue_id,
            offset: header.offset,
        })
    });
    let popped = match popped {
        Ok(popped) => popped,
        Err(error) => return request.reply.fail(error),
    };
    let broker = remoting.broker.clone();
    when_done(request, async move { broker.ack_popped(&popped).await });
}

/// 200151: messages of many batches were handled. Those that are not in flight any more are passed over, as RocketMQ does: they come again.
pub(crate) fn batch_ack(remoting: &Arc<Remoting>, request: Request) {
    let body: Result<BatchAckMessages, ServerError> = decode(&request.frame.body, ACKS_MAX + 1);
    let all = body.and_then(|body| {
        let each = body.acks.iter().map(|ack| messages(&body.broker_name, ack));
        Ok(each.collect::<Result<Vec<_>, _>>()?.concat())
    });
    let all = match all {
        Ok(all) if all.is_empty() => {
            let text = "[POP]the request acknowledges no message".to_owned();
            return request.reply.fail(BrokerError::NotInFlight(text));
        }
        Ok(all) if all.len() > MESSAGES_MAX => {
            let text = format!("{} messages acknowledged at once, the limit is {MESSAGES_MAX}", all.len());
            return request.reply.fail(BrokerError::InvalidParameter(text));
        }
        Ok(all) => all,
        Err(error) => return request.reply.fail(error),
    };
    let broker = remoting.broker.clone();
    when_done(request, async move {
        for some in all.chunks(TOGETHER) {
            let tasks: Vec<_> = some
                .iter()
                .map(|popped| {
                    let (broker, popped) = (broker.clone(), popped.clone());
                    tokio::spawn(async move { broker.ack_popped(&popped).await })
                })
                .collect();
            for task in tasks {
                match task.await {
                    Ok(Ok(()) | Err(BrokerError::NotInFlight(_))) => {}
                    Ok(Err(error)) => return Err(error),
                    Err(_) => return Err(BrokerError::Internal("the node stops".to_owned())),
                }
            }
        }
        Ok(())
    });
}

/// The messages of one batch.
fn messages(broker: &str, ack: &BatchAck) -> Result<Vec<Popped>, ServerError> {
    let refused =
        || BrokerError::InvalidParameter(format!("a batch of acknowledgements is malformed: {ack:?}"));
    let retry = Retry::of_flag(&ack.retry).ok_or_else(refused)?;
    let number = |value: i64| u64::try_from(value).map_err(|_| refused());
    let (group, topic) = (ack.group.as_str().into(), retry.topic(&ack.group, &ack.topic).into());
    let of_first = Popped {
        group,
        topic,
        queue_id: i32::try_from(ack.queue).map_err(|_| refused())?,
        offset: ack.start,
        handle: Handle {
            start: number(ack.start)?,
            popped_ms: number(ack.pop_time)?,
            invisible_ms: number(ack.invisible_time)?,
            revive_queue: i32::try_from(ack.revive_queue).map_err(|_| refused())?,
            retry,
            broker: broker.to_owned(),
            queue: u32::try_from(ack.queue).map_err(|_| refused())?,
            offset: number(ack.start)?,
        },
    };
    let one = |diff: &u64| Popped { offset: ack.start.saturating_add_unsigned(*diff), ..of_first.clone() };
    Ok(ack.messages.0.iter().map(one).collect())
}

/// 200053: a message becomes visible at another time.
pub(crate) fn change_invisible(remoting: &Arc<Remoting>, request: Request) {
    let read = ChangeInvisibleTimeHeader::from_ext(&request.frame.ext).map_err(ServerError::from);
    let wish = read.and_then(|header| Ok((handle(&header.extra_info)?, header)));
    let (handle, header) = match wish {
        Ok(wish) => wish,
        Err(error) => return request.reply.fail(error),
    };
    let revive_queue_id = handle.revive_queue;
    let popped = Popped {
        handle,
        group: header.consumer_group,
        topic: header.topic,
        queue_id: header.queue_id,
        offset: header.offset,
    };
    let broker = remoting.broker.clone();
    tokio::spawn(async move {
        match broker.change_popped(&popped, header.invisible_time).await {
            Ok(changed) => {
                let header = ChangeInvisibleTimeResponseHeader {
                    pop_time: changed.popped_ms.cast_signed(),
                    invisible_time: changed.invisible_ms.cast_signed(),
                    revive_queue_id,
                };
                request.reply.ok(&header, Bytes::new());
            }
            Err(error) => request.reply.fail(error),
        }
    });
}
