//! The second half of each transaction on one connection: the END_TRANSACTION that commits a half message.
//!
//! A transaction keeps one slot from its SEND to the answer of its END_TRANSACTION, and both requests have that slot's
//! opaque. A request of a new transaction in the slot starts with [`Transactions::began`], so a lost connection needs no
//! clean-up here.

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use folio_protocol::Name;
use folio_protocol::code::RequestCode;
use folio_protocol::flags::sys_flag;
use folio_protocol::frame::{Frame, Serialization};
use folio_protocol::header::{EndTransactionHeader, Header, SendMessageResponseHeader};
use folio_protocol::ids::OffsetMessageId;

use super::template::OPAQUE_MIN;

/// Where a slot's transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The answer to the half message of this topic is next.
    Half { topic: usize },
    /// The answer to the END_TRANSACTION is next.
    End,
}

/// The transactions of one connection, by slot.
pub(super) struct Transactions {
    topics: Vec<Name>,
    producer_group: Name,
    serialization: Serialization,
    phases: Vec<Phase>,
}

impl Transactions {
    /// Transactions in `slots` slots.
    pub(super) fn new(
        topics: &[String],
        producer_group: &str,
        serialization: Serialization,
        slots: usize,
    ) -> Self {
        Self {
            topics: topics.iter().map(|topic| topic.as_str().into()).collect(),
            producer_group: producer_group.into(),
            serialization,
            phases: vec![Phase::End; slots],
        }
    }

    /// A half message was written: of the topic with this number, counted round and round.
    pub(super) fn began(&mut self, opaque: i32, turn: usize) {
        let topic = turn % self.topics.len();
        if let Some(phase) = self.phase(opaque) {
            *phase = Phase::Half { topic };
        }
    }

    /// Takes the answer of a stored half message: appends the END_TRANSACTION that commits it. False if the answer is that
    /// to an END_TRANSACTION.
    pub(super) fn commit(&mut self, opaque: i32, answer: &[u8], out: &mut BytesMut) -> Result<bool> {
        let Some(phase) = self.phase(opaque) else { return Ok(false) };
        let Phase::Half { topic } = *phase else { return Ok(false) };
        *phase = Phase::End;
        let answer = Frame::decode(&mut BytesMut::from(answer))?.context("half an answer")?;
        let sent = SendMessageResponseHeader::from_ext(&answer.ext)?;
        let id: OffsetMessageId = sent.msg_id.parse()?;
        let unique_key = sent.transaction_id.context("the answer to a half message has no transactionId")?;
        let header = EndTransactionHeader {
            topic: Some(self.topics[topic].clone()),
            producer_group: self.producer_group.clone(),
            tran_state_table_offset: sent.queue_offset,
            commit_log_offset: id.position.cast_signed(),
            commit_or_rollback: sys_flag::TRANSACTION_COMMIT,
            from_transaction_check: false,
            msg_id: unique_key.clone(),
            transaction_id: Some(unique_key),
        };
        let mut frame = Frame::request(RequestCode::EndTransaction, &header, Bytes::new());
        (frame.opaque, frame.serialization) = (opaque, self.serialization);
        frame.encode(out)?;
        Ok(true)
    }

    fn phase(&mut self, opaque: i32) -> Option<&mut Phase> {
        let slot = usize::try_from(opaque.checked_sub(OPAQUE_MIN)?).ok()?;
        self.phases.get_mut(slot)
    }
}

#[cfg(test)]
mod tests {
    use folio_protocol::code::ResponseCode;
    use folio_protocol::header::SendAnswer;

    use super::*;

    fn stored(opaque: i32) -> BytesMut {
        let answer = SendAnswer {
            host: ([127, 0, 0, 1], 10_911).into(),
            positions: &[4_711],
            queue_id: 3,
            queue_offset: 17,
            transaction_id: Some("KEY"),
            recall_handle: None,
            region_id: "DefaultRegion",
            trace_on: true,
        };
        let mut out = BytesMut::new();
        let frame = Frame::response(opaque, Serialization::Json, ResponseCode::Success);
        frame.encode_with(&answer, &mut out).unwrap();
        out
    }

    #[test]
    fn a_half_message_is_committed_once_by_what_its_answer_says() {
        let topics = ["a".to_owned(), "b".to_owned()];
        let mut transactions = Transactions::new(&topics, "p", Serialization::Rocketmq, 2);
        let opaque = OPAQUE_MIN + 1;
        transactions.began(opaque, 5);
        let mut out = BytesMut::new();
        assert!(transactions.commit(opaque, &stored(opaque), &mut out).unwrap());
        let frame = Frame::decode(&mut out).unwrap().unwrap();
        let end = EndTransactionHeader::from_ext(&frame.ext).unwrap();
        assert_eq!((frame.code, frame.opaque, frame.is_oneway()), (37, opaque, false));
        assert_eq!((end.commit_log_offset, end.tran_state_table_offset), (4_711, 17));
        assert_eq!((end.commit_or_rollback, end.topic.as_deref(), &*end.msg_id), (8, Some("b"), "KEY"));
        assert!(!transactions.commit(opaque, &stored(opaque), &mut out).unwrap(), "that is the end's answer");
        assert!(out.is_empty());
    }

    #[test]
    fn an_answer_of_no_slot_ends_nothing() {
        let mut transactions = Transactions::new(&["a".to_owned()], "p", Serialization::Json, 1);
        for opaque in [0, i32::MIN, OPAQUE_MIN, OPAQUE_MIN + 1] {
            assert!(!transactions.commit(opaque, &stored(opaque), &mut BytesMut::new()).unwrap());
        }
    }
}
