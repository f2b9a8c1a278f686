//! The requests of a load of pops, and the handles in their answers.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use bytes::Bytes;
use folio_protocol::Name;
use folio_protocol::body::{self, BatchAck, BatchAckMessages, SUB_ALL};
use folio_protocol::code::RequestCode;
use folio_protocol::frame::Frame;
use folio_protocol::header::{
    AckMessageHeader, Header, NoHeader, PopMessageHeader, PopMessageResponseHeader,
};
use folio_protocol::message::{MessageView, Messages};
use folio_protocol::popped::{Handle, Retry};
use folio_protocol::properties::POP_CK;

use super::options::Acks;

/// How long a server may hold a pop that waits: short, so that the end of the run is not overslept.
const POLL_MS: i64 = 1_000;
/// Any queue of the broker.
const ANY_QUEUE: i32 = -1;
/// A new group starts at the first message.
const FROM_THE_FIRST: i32 = 0;

/// What all requests of a load have in common.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) topic: Name,
    pub(super) group: Name,
    pub(super) batch: i32,
    pub(super) invisible_ms: i64,
    pub(super) follow: bool,
    pub(super) acks: Acks,
}

/// The messages of an answer to a pop.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Popped {
    pub(super) handles: Vec<Handle>,
    /// Bytes of the stored messages.
    pub(super) bytes: u64,
}

/// A request that acknowledges messages, and how many.
pub(super) struct Ack {
    pub(super) frame: Frame,
    pub(super) messages: u64,
}

impl Question {
    /// A pop.
    pub(super) fn pop(&self, now_ms: u64) -> Frame {
        let header = PopMessageHeader {
            consumer_group: self.group.clone(),
            topic: self.topic.clone(),
            queue_id: ANY_QUEUE,
            max_msg_nums: self.batch,
            invisible_time: self.invisible_ms,
            poll_time: if self.follow { POLL_MS } else { 0 },
            born_time: now_ms.cast_signed(),
            init_mode: FROM_THE_FIRST,
            expression_type: Some("TAG".to_owned()),
            expression: Some(SUB_ALL.to_owned()),
            order: Some(false),
            attempt_id: None,
        };
        Frame::request(RequestCode::PopMessage, &header, Bytes::new())
    }

    /// What acknowledges the messages.
    pub(super) fn acks(&self, handles: &[Handle], broker: &str) -> Result<Vec<Ack>> {
        match self.acks {
            Acks::Each => Ok(handles.iter().map(|handle| self.ack(handle)).collect()),
            Acks::Batch if handles.is_empty() => Ok(Vec::new()),
            Acks::Batch => Ok(vec![self.batch_ack(handles, broker)?]),
        }
    }

    fn ack(&self, handle: &Handle) -> Ack {
        let header = AckMessageHeader {
            consumer_group: self.group.clone(),
            topic: handle.retry.topic(&self.group, &self.topic).into(),
            queue_id: handle.queue.cast_signed(),
            extra_info: handle.to_string(),
            offset: handle.offset.cast_signed(),
        };
        Ack { frame: Frame::request(RequestCode::AckMessage, &header, Bytes::new()), messages: 1 }
    }

    fn batch_ack(&self, handles: &[Handle], broker: &str) -> Result<Ack> {
        let mut batches = BTreeMap::new();
        for handle in handles {
            let key = (handle.retry.flag(), handle.queue, handle.start, handle.popped_ms);
            let batch = batches.entry(key).or_insert_with(|| BatchAck {
                group: self.group.to_string(),
                topic: self.topic.to_string(),
                retry: handle.retry.flag().to_owned(),
                start: handle.start.cast_signed(),
                queue: handle.queue.into(),
                revive_queue: handle.revive_queue.into(),
                pop_time: handle.popped_ms.cast_signed(),
                invisible_time: handle.invisible_ms.cast_signed(),
                ..BatchAck::default()
            });
            batch.messages.0.insert(handle.offset.saturating_sub(handle.start));
        }
        let acks = batches.into_values().collect();
        let body = body::encode(&BatchAckMessages { broker_name: broker.to_owned(), acks })?;
        let frame = Frame::request(RequestCode::BatchAckMessage, &NoHeader, body);
        Ok(Ack { frame, messages: handles.len() as u64 })
    }
}

impl Popped {
    /// What an answer to a pop says, as RocketMQ's clients read it. A message that comes again carries its handle.
    pub(super) fn of(answer: &Frame, broker: &str) -> Result<Self> {
        let head = PopMessageResponseHeader::from_ext(&answer.ext)?;
        let starts = head.start_offset_info.as_deref().unwrap_or_default();
        let made = |message: &MessageView<'_>| -> Result<Handle> {
            let queue = message.queue_id();
            let start = start_of(starts, queue)
                .with_context(|| format!("the answer to a pop has no start of queue {queue}: {starts:?}"))?;
            Ok(Handle {
                start,
                popped_ms: u64::try_from(head.pop_time)?,
                invisible_ms: u64::try_from(head.invisible_time)?,
                revive_queue: head.revive_queue_id,
                retry: Retry::Normal,
                broker: broker.to_owned(),
                queue,
                offset: message.queue_offset(),
            })
        };
        let mut popped = Self::default();
        for message in Messages::new(&answer.body) {
            let (_, message) = message?;
            popped.bytes += message.total_size() as u64;
            popped.handles.push(match message.property(POP_CK) {
                Some(text) => Handle::parse(text)?,
                None => made(&message)?,
            });
        }
        Ok(popped)
    }
}

/// Where the batch of a queue of the topic itself starts: `0 queue start`, parts with `;` between them.
fn start_of(starts: &str, queue: u32) -> Option<u64> {
    let key = format!("{} {queue} ", Retry::Normal.flag());
    starts.split(';').find_map(|part| part.strip_prefix(&key))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use folio_protocol::code::ResponseCode;
    use folio_protocol::frame::Serialization;

    use super::*;
    use crate::bench::kind::pair;
    use crate::bench::testing::stored;

    fn question(acks: Acks) -> Question {
        Question {
            topic: "t".into(),
            group: "g".into(),
            batch: 32,
            invisible_ms: 60_000,
            follow: false,
            acks,
        }
    }

    fn message(queue_id: u32, properties: String) -> Vec<u8> {
        stored(queue_id, 1, properties)
    }

    fn answer(body: Vec<u8>) -> Frame {
        let header = PopMessageResponseHeader {
            pop_time: 1_000,
            invisible_time: 60_000,
            revive_queue_id: 0,
            rest_num: 0,
            start_offset_info: Some("0 1 7;1 0 9;0 12 0".to_owned()),
            msg_offset_info: None,
            order_count_info: None,
        };
        Frame::response(1, Serialization::Json, ResponseCode::Success).with_header(&header).with_body(body)
    }

    fn handle(retry: Retry, queue: u32, start: u64, offset: u64) -> Handle {
        let broker = "b".to_owned();
        Handle {
            start,
            popped_ms: 1_000,
            invisible_ms: 60_000,
            revive_queue: 0,
            retry,
            broker,
            queue,
            offset,
        }
    }

    #[test]
    fn a_handle_is_made_of_the_answer_or_is_that_of_the_message() {
        let again = handle(Retry::V1, 0, 9, 11);
        let body = [message(12, String::new()), message(0, pair(POP_CK, &again.to_string()))].concat();
        let popped = Popped::of(&answer(body.clone()), "b").unwrap();
        assert_eq!(
            (popped.handles, popped.bytes),
            (vec![handle(Retry::Normal, 12, 0, 0), again], body.len() as u64)
        );
        let unknown = Popped::of(&answer(message(2, String::new())), "b").unwrap_err();
        assert!(unknown.to_string().contains("no start of queue 2"), "{unknown}");
    }

    #[test]
    fn each_message_has_an_ack_of_its_own_in_the_topic_it_came_from() {
        let handles = [handle(Retry::Normal, 1, 7, 8), handle(Retry::V1, 0, 9, 11)];
        let acks = question(Acks::Each).acks(&handles, "b").unwrap();
        let said: Vec<_> =
            acks.iter().map(|ack| AckMessageHeader::from_ext(&ack.frame.ext).unwrap()).collect();
        assert_eq!(
            (&*said[0].topic, said[0].offset, &*said[0].extra_info),
            ("t", 8, "7 1000 60000 0 0 b 1 8")
        );
        assert_eq!((&*said[1].topic, said[1].queue_id), ("%RETRY%g_t", 0));
        assert!(acks.iter().all(|ack| ack.messages == 1));
    }

    #[test]
    fn a_batch_of_acks_has_one_part_for_each_batch_of_the_pop() {
        let handles =
            [handle(Retry::Normal, 1, 7, 8), handle(Retry::V1, 0, 9, 11), handle(Retry::Normal, 1, 7, 10)];
        let acks = question(Acks::Batch).acks(&handles, "b").unwrap();
        assert_eq!((acks.len(), acks[0].messages), (1, 3));
        let said: BatchAckMessages = body::decode(&acks[0].frame.body).unwrap();
        let parts: Vec<_> =
            said.acks.iter().map(|ack| (&*ack.retry, ack.queue, ack.start, ack.messages.0.len())).collect();
        assert_eq!((&*said.broker_name, parts), ("b", vec![("0", 1, 7, 2), ("1", 0, 9, 1)]));
        assert!(said.acks.iter().all(|ack| ack.topic == "t"), "without the prefix of a retry topic");
        assert!(question(Acks::Batch).acks(&[], "b").unwrap().is_empty());
    }

    #[test]
    fn a_pop_waits_only_if_it_follows() {
        let header = |follow| {
            let question = Question { follow, ..question(Acks::Each) };
            PopMessageHeader::from_ext(&question.pop(5).ext).unwrap()
        };
        assert_eq!((header(false).poll_time, header(true).poll_time), (0, POLL_MS));
        assert_eq!((header(true).queue_id, header(true).max_msg_nums), (-1, 32));
    }
}
