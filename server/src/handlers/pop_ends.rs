//! What ends the flight of popped messages: 200051 and 200151 acknowledge, 200053 changes the invisible time. See [`folio_broker::pop`].
//!
//! 200151 acknowledges what is in flight of many batches. Where some of it is not in flight any more, and comes again, the answer is NO_MESSAGE (208)
//! once all others are acknowledged. RocketMQ answers SUCCESS. Here SUCCESS says of every message that it never comes again (`pop.I5`), as the answer to
//! 200051 does.
//!
//! A batch has at most [`ACK_MESSAGES_MAX`] messages, which is checked while the body is read, so a request has [`ACKS_MAX`] times as many. Of these,
//! [`TOGETHER`] exist at a time.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use folio_broker::broker::Broker;
use folio_broker::error::BrokerError;
use folio_broker::pop::Popped;
use folio_protocol::body::{BatchAck, BatchAckMessages, OffsetSet};
use folio_protocol::header::{
    AckMessageHeader, ChangeInvisibleTimeHeader, ChangeInvisibleTimeResponseHeader, Header,
};
use folio_protocol::limits::{ACK_MESSAGES_MAX, ACKS_MAX, RETRY_TOPIC_BYTES_MAX};
use folio_protocol::names;
use folio_protocol::popped::{Handle, Retry};
use folio_state::sections::popped::BATCH_MESSAGES_MAX;

use super::answers::{decode, when_done};
use crate::error::ServerError;
use crate::remoting::Remoting;
use crate::request::Request;

/// Acknowledgements of one request that are under way together.
const TOGETHER: usize = 64;
// A batch that was given out can be acknowledged in one.
const _: () = assert!(ACK_MESSAGES_MAX >= BATCH_MESSAGES_MAX);

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

/// 200151: messages of many batches were handled. See the module.
pub(crate) fn batch_ack(remoting: &Arc<Remoting>, request: Request) {
    let batches = decode(&request.frame.body, ACKS_MAX + 1).and_then(|body| batches(&body));
    let batches = match batches {
        Ok(batches) if batches.iter().all(|batch| batch.messages.0.is_empty()) => {
            let text = "[POP]the request acknowledges no message".to_owned();
            return request.reply.fail(BrokerError::NotInFlight(text));
        }
        Ok(batches) => batches,
        Err(error) => return request.reply.fail(error),
    };
    let broker = remoting.broker.clone();
    when_done(request, async move { ack_all(&broker, &batches).await });
}

/// Acknowledges all messages of some batches, whatever some of them are refused for, which is told in the end.
async fn ack_all(broker: &Arc<Broker>, batches: &[AckedBatch]) -> Result<(), BrokerError> {
    let mut messages = batches.iter().flat_map(AckedBatch::each);
    let mut acked = Acked::default();
    loop {
        let some = messages.by_ref().take(TOGETHER);
        let tasks: Vec<_> = some.map(|popped| tokio::spawn(ack_one(broker.clone(), popped))).collect();
        if tasks.is_empty() {
            return acked.told();
        }
        for task in tasks {
            let stopped = |_| Err(BrokerError::Internal("the node stops".to_owned()));
            acked.note(task.await.unwrap_or_else(stopped))?;
        }
    }
}

/// What became of the messages of a request.
#[derive(Default)]
struct Acked {
    all: usize,
    not_in_flight: usize,
    refused: Option<BrokerError>,
}

impl Acked {
    /// What became of one; an error where the others cannot be acknowledged now, either.
    fn note(&mut self, outcome: Result<(), BrokerError>) -> Result<(), BrokerError> {
        self.all += 1;
        match outcome {
            Err(BrokerError::NotInFlight(_)) => self.not_in_flight += 1,
            Err(error @ (BrokerError::TopicNotExist(_) | BrokerError::IllegalMessage(_))) => {
                self.refused.get_or_insert(error);
            }
            other => return other,
        }
        Ok(())
    }

    fn told(self) -> Result<(), BrokerError> {
        let Acked { all, not_in_flight, refused } = self;
        match refused {
            Some(error) => Err(error),
            None if not_in_flight == 0 => Ok(()),
            None => Err(BrokerError::NotInFlight(format!(
                "[POP]{not_in_flight} of {all} messages are not in flight by these handles: their invisible time is over, or other handles have \
                 replaced these; all others are acknowledged"
            ))),
        }
    }
}

async fn ack_one(broker: Arc<Broker>, popped: Popped) -> Result<(), BrokerError> {
    broker.ack_popped(&popped).await
}

/// Messages of one batch, each of which is made when its turn comes: a body may name very many.
#[derive(Debug)]
struct AckedBatch {
    first: Popped,
    messages: OffsetSet,
}

/// The batches of a request, once all were checked.
fn batches(body: &BatchAckMessages) -> Result<Vec<AckedBatch>, ServerError> {
    Ok(body.acks.iter().map(AckedBatch::of).collect::<Result<_, _>>()?)
}

impl AckedBatch {
    fn of(ack: &BatchAck) -> Result<AckedBatch, BrokerError> {
        names::check_group(&ack.group)?;
        if ack.topic.len() > RETRY_TOPIC_BYTES_MAX {
            return Err(malformed("t", format_args!("of {} bytes", ack.topic.len())));
        }
        let number = |field, value: i64| u64::try_from(value).map_err(|_| malformed(field, value));
        let retry = Retry::of_flag(&ack.retry).ok_or_else(|| malformed("r", &ack.retry))?;
        let handle = Handle {
            start: number("so", ack.start)?,
            popped_ms: number("pt", ack.pop_time)?,
            invisible_ms: number("it", ack.invisible_time)?,
            revive_queue: i32::try_from(ack.revive_queue).map_err(|_| malformed("rq", ack.revive_queue))?,
            retry,
            // What acknowledges does not look at it.
            broker: String::new(),
            queue: u32::try_from(ack.queue).map_err(|_| malformed("q", ack.queue))?,
            offset: number("so", ack.start)?,
        };
        let first = Popped {
            group: ack.group.as_str().into(),
            topic: retry.topic(&ack.group, &ack.topic).into(),
            queue_id: i32::try_from(ack.queue).map_err(|_| malformed("q", ack.queue))?,
            offset: ack.start,
            handle,
        };
        Ok(AckedBatch { first, messages: ack.messages.clone() })
    }

    fn each(&self) -> impl Iterator<Item = Popped> {
        let offset = |diff: &u64| self.first.offset.saturating_add_unsigned(*diff);
        self.messages.0.iter().map(move |diff| Popped { offset: offset(diff), ..self.first.clone() })
    }
}

fn malformed(field: &str, value: impl fmt::Debug) -> BrokerError {
    BrokerError::InvalidParameter(format!("a batch of acknowledgements is malformed: {field:?} is {value:?}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ack() -> BatchAck {
        BatchAck { group: "g".into(), topic: "t".into(), retry: "1".into(), start: 7, ..BatchAck::default() }
    }

    fn refused(ack: BatchAck) -> String {
        AckedBatch::of(&ack).expect_err("refused").to_string()
    }

    #[test]
    fn the_messages_of_a_batch_are_made_one_by_one() {
        let messages = OffsetSet([0, 3, 800].into());
        let batch = AckedBatch::of(&BatchAck { messages, queue: 2, pop_time: 5, ..ack() }).expect("a batch");
        let all: Vec<Popped> = batch.each().collect();
        assert_eq!(all.iter().map(|popped| popped.offset).collect::<Vec<_>>(), [7, 10, 807]);
        let last = &all[2];
        assert_eq!((&*last.topic, last.queue_id, last.handle.start), ("%RETRY%g_t", 2, 7));
        assert_eq!((last.handle.popped_ms, last.handle.retry), (5, Retry::V1));
    }

    #[test]
    fn what_is_refused_of_a_request_is_told_once_all_others_are_acknowledged() {
        let mut acked = Acked::default();
        let (late, gone) =
            (|| BrokerError::NotInFlight("late".into()), || BrokerError::TopicNotExist("t".into()));
        for outcome in [Ok(()), Err(late()), Ok(())] {
            assert_eq!(acked.note(outcome), Ok(()));
        }
        assert_eq!((acked.all, acked.not_in_flight), (3, 1));
        assert_eq!(acked.note(Err(gone())), Ok(()));
        assert_eq!(acked.note(Err(BrokerError::NoLeader)), Err(BrokerError::NoLeader));
        assert_eq!(acked.told(), Err(gone()));
    }

    #[test]
    fn a_malformed_batch_is_refused_by_the_name_of_its_field() {
        assert!(refused(BatchAck { retry: "3".into(), ..ack() }).contains("\"r\" is \"3\""));
        assert!(refused(BatchAck { start: -1, ..ack() }).contains("\"so\" is -1"));
        assert!(refused(BatchAck { queue: -1, ..ack() }).contains("\"q\" is -1"));
        assert!(refused(BatchAck { revive_queue: i64::MAX, ..ack() }).contains("\"rq\""));
        assert!(refused(BatchAck { group: "g".repeat(200), ..ack() }).contains("group"));
        assert!(refused(BatchAck { topic: "t".repeat(256), ..ack() }).contains("\"t\" is of 256 bytes"));
    }
}
