//! One queue as a pull load reads it: where it stands and what it asks next.

use std::time::Instant;

use bytes::Bytes;
use folio_protocol::Name;
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::flags::pull_sys_flag;
use folio_protocol::frame::{Frame, Serialization};
use folio_protocol::header::{Header, PullMessageResponseHeader};
use folio_protocol::message::MESSAGE_BYTES_MIN;

use crate::pull::pull_header;

/// How long a server may hold a pull that waits: short, so that the end of the run is not overslept.
const SUSPEND_MS: i64 = 1_000;

/// What all pulls of a load have in common.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) topic: Name,
    pub(super) group: Name,
    pub(super) batch: i32,
    pub(super) follow: bool,
    pub(super) serialization: Serialization,
}

/// One queue.
#[derive(Debug)]
pub(super) struct QueueReader {
    pub(super) queue: u32,
    pub(super) offset: i64,
    /// When the pull in flight was written.
    pub(super) asked: Option<Instant>,
    /// Whether the end was reached, and nobody waits there.
    pub(super) done: bool,
    /// Not before then.
    pub(super) pause_until: Option<Instant>,
}

/// What an answer came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// So many messages of so many bytes.
    Found { messages: u64, bytes: u64 },
    /// Nothing there, or another place to look.
    Nothing,
    /// An error.
    Refused,
}

impl QueueReader {
    pub(super) fn new(queue: u32, offset: i64) -> Self {
        Self { queue, offset, asked: None, done: false, pause_until: None }
    }

    /// Whether it should ask now.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        !self.done && self.asked.is_none() && self.pause_until.is_none_or(|until| until <= now)
    }

    /// The next pull.
    pub(super) fn request(&self, question: &Question, opaque: i32) -> Frame {
        let (group, topic) = (question.group.clone(), question.topic.clone());
        let mut header = pull_header(group, topic, self.queue.cast_signed(), (self.offset, question.batch));
        if question.follow {
            header.sys_flag |= pull_sys_flag::SUSPEND;
            header.suspend_timeout_millis = SUSPEND_MS;
        }
        let mut frame = Frame::request(RequestCode::PullMessage, &header, Bytes::new());
        (frame.opaque, frame.serialization) = (opaque, question.serialization);
        frame
    }

    /// Takes an answer in and moves on.
    pub(super) fn answered(&mut self, answer: &Frame, follow: bool) -> Outcome {
        self.asked = None;
        let next = PullMessageResponseHeader::from_ext(&answer.ext).map(|header| header.next_begin_offset);
        match ResponseCode::from_code(answer.code) {
            Some(ResponseCode::Success) => {
                let (messages, bytes) = count(&answer.body);
                // A header without its offset would make the same messages count again and again.
                let Ok(next) = next else { return Outcome::Refused };
                self.offset = next;
                Outcome::Found { messages, bytes }
            }
            Some(ResponseCode::PullNotFound) => {
                self.done = !follow;
                Outcome::Nothing
            }
            Some(ResponseCode::PullRetryImmediately | ResponseCode::PullOffsetMoved) => {
                let moved = next.as_ref().is_ok_and(|next| *next != self.offset);
                self.offset = next.unwrap_or(self.offset);
                // Told to stay where it is, it would turn in a circle.
                self.done = !follow && !moved;
                Outcome::Nothing
            }
            _ => Outcome::Refused,
        }
    }
}

/// Messages in an answer's body, by their lengths alone, and all their bytes.
fn count(body: &[u8]) -> (u64, u64) {
    let (mut messages, mut rest) = (0, body);
    while let Some(size) = rest.first_chunk::<4>() {
        let size = u32::from_be_bytes(*size) as usize;
        match rest.get(size..) {
            Some(after) if size >= MESSAGE_BYTES_MIN => rest = after,
            _ => break,
        }
        messages += 1;
    }
    (messages, (body.len() - rest.len()) as u64)
}

#[cfg(test)]
mod tests {
    use folio_protocol::header::PullMessageHeader;

    use super::*;

    fn message() -> Vec<u8> {
        let mut bytes = vec![0; 100];
        bytes[..4].copy_from_slice(&100_u32.to_be_bytes());
        bytes
    }

    fn answer(code: ResponseCode, next: i64, body: Vec<u8>) -> Frame {
        let header = PullMessageResponseHeader {
            suggest_which_broker_id: 0,
            next_begin_offset: next,
            min_offset: 0,
            max_offset: 9,
            offset_delta: None,
            topic_sys_flag: None,
            group_sys_flag: None,
            forbidden_type: None,
        };
        Frame::response(1, Serialization::Json, code).with_header(&header).with_body(body)
    }

    #[test]
    fn messages_are_counted_by_their_lengths_and_a_cut_one_is_not() {
        let body = [message(), message(), message()[..50].to_vec()].concat();
        assert_eq!(count(&body), (2, 200));
        assert_eq!(count(&[0; 8]), (0, 0));
    }

    #[test]
    fn a_reader_goes_where_the_answer_says_and_ends_at_the_end() {
        let mut reader = QueueReader::new(0, 5);
        let found = answer(ResponseCode::Success, 6, message());
        assert_eq!(reader.answered(&found, false), Outcome::Found { messages: 1, bytes: 100 });
        assert_eq!(reader.offset, 6);
        assert_eq!(
            reader.answered(&answer(ResponseCode::PullOffsetMoved, 8, vec![]), false),
            Outcome::Nothing
        );
        assert_eq!((reader.offset, reader.done), (8, false));
        assert_eq!(reader.answered(&answer(ResponseCode::PullNotFound, 8, vec![]), true), Outcome::Nothing);
        assert!(!reader.done);
        assert_eq!(reader.answered(&answer(ResponseCode::PullNotFound, 8, vec![]), false), Outcome::Nothing);
        assert!(reader.done);
        assert_eq!(reader.answered(&answer(ResponseCode::SystemError, 8, vec![]), false), Outcome::Refused);
    }

    #[test]
    fn the_request_is_the_pull_of_its_place() {
        let question = Question {
            topic: "t".into(),
            group: "g".into(),
            batch: 32,
            follow: true,
            serialization: Serialization::Rocketmq,
        };
        let frame = QueueReader::new(3, 77).request(&question, 12);
        let header = PullMessageHeader::from_ext(&frame.ext).unwrap();
        assert_eq!((header.queue_id, header.queue_offset, header.max_msg_nums), (3, 77, 32));
        assert_eq!((header.sys_flag, frame.opaque), (0x6, 12));
    }
}
