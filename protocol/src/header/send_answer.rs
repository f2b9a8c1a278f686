//! The answer to a SEND as a server writes it: borrowed parts, put straight into the frame.
//!
//! Reading it back is [`SendMessageResponseHeader`](super::SendMessageResponseHeader)'s; the tests hold the two to the
//! same bytes.

use std::net::SocketAddr;

use crate::fields::{FieldWriter, Fields};
use crate::ids::{OFFSET_ID_V6_CHARS, OffsetMessageId};

/// Where the messages of a SEND are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendAnswer<'a> {
    /// The store host of the messages.
    pub host: SocketAddr,
    /// Commit-log position of each message; with the host it makes the message's id.
    pub positions: &'a [u64],
    /// The queue they went to.
    pub queue_id: i32,
    /// The (first) offset there.
    pub queue_offset: i64,
    /// The message's UNIQ_KEY.
    pub transaction_id: Option<&'a str>,
    /// By which the message is recalled, if it is a delayed one.
    pub recall_handle: Option<&'a str>,
    /// The region.
    pub region_id: &'a str,
    /// Whether the messages are traced.
    pub trace_on: bool,
}

impl Fields for SendAnswer<'_> {
    fn write(&self, out: &mut impl FieldWriter) {
        match self.positions {
            &[position] => out.text("msgId", OffsetMessageId { host: self.host, position }.hex().as_str()),
            positions => out.text("msgId", &self.joined_ids(positions)),
        }
        out.number("queueId", self.queue_id.into());
        out.number("queueOffset", self.queue_offset);
        if let Some(id) = self.transaction_id {
            out.text("transactionId", id);
        }
        if let Some(handle) = self.recall_handle {
            out.text("recallHandle", handle);
        }
        out.text("MSG_REGION", self.region_id);
        out.text("TRACE_ON", if self.trace_on { "true" } else { "false" });
    }
}

impl SendAnswer<'_> {
    /// The ids of a batch, joined by commas.
    fn joined_ids(&self, positions: &[u64]) -> String {
        let mut ids = String::with_capacity(positions.len() * (OFFSET_ID_V6_CHARS + 1));
        for &position in positions {
            if !ids.is_empty() {
                ids.push(',');
            }
            ids.push_str(OffsetMessageId { host: self.host, position }.hex().as_str());
        }
        ids
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;
    use crate::code::ResponseCode;
    use crate::frame::{Frame, Serialization};
    use crate::header::{Header, SendMessageResponseHeader};

    fn answer(positions: &[u64]) -> SendAnswer<'_> {
        SendAnswer {
            host: ([192, 168, 0, 1], 10_911).into(),
            positions,
            queue_id: 3,
            queue_offset: 17,
            transaction_id: Some("7F0000010A2B00000C0D11223344AABB"),
            recall_handle: None,
            region_id: "DefaultRegion",
            trace_on: true,
        }
    }

    fn encoded(answer: &SendAnswer<'_>, serialization: Serialization) -> BytesMut {
        let mut out = BytesMut::new();
        let frame = Frame::response(9, serialization, ResponseCode::Success);
        frame.encode_with(answer, &mut out).expect("short enough");
        out
    }

    #[test]
    fn an_answer_in_json_has_these_bytes() {
        let json = concat!(
            r#"{"code":0,"extFields":{"msgId":"C0A8000100002A9F0000000000001234","queueId":"3","#,
            r#""queueOffset":"17","transactionId":"7F0000010A2B00000C0D11223344AABB","#,
            r#""MSG_REGION":"DefaultRegion","TRACE_ON":"true"},"flag":1,"language":"JAVA","#,
            r#""opaque":9,"serializeTypeCurrentRPC":"JSON","version":479}"#
        );
        let bytes = encoded(&answer(&[0x1234]), Serialization::Json);
        assert_eq!(std::str::from_utf8(&bytes[8..]), Ok(json));
    }

    #[test]
    fn the_answer_to_a_batch_joins_its_ids() {
        let mut bytes = encoded(&answer(&[1, 2]), Serialization::Rocketmq);
        let frame = Frame::decode(&mut bytes).expect("well-formed").expect("whole");
        let header = SendMessageResponseHeader::from_ext(&frame.ext).expect("well-formed");
        let ids = "C0A8000100002A9F0000000000000001,C0A8000100002A9F0000000000000002";
        assert_eq!(header.msg_id, ids);
    }

    proptest! {
        /// One path makes a list of owned fields, the other one none.
        #[test]
        fn an_answer_has_the_bytes_of_its_typed_header(
            host: std::net::IpAddr, positions in proptest::collection::vec(any::<u64>(), 0..4), queue_id: i32,
            queue_offset: i64, transaction_id: Option<String>, recall_handle: Option<String>, region_id: String, trace_on: bool,
            is_json: bool,
        ) {
            let host = SocketAddr::new(host, 10_911);
            let ids = positions.iter().map(|position| OffsetMessageId { host, position: *position }.to_string());
            let header = SendMessageResponseHeader {
                msg_id: ids.collect::<Vec<_>>().join(","),
                queue_id,
                queue_offset,
                transaction_id: transaction_id.clone(),
                batch_uniq_id: None,
                recall_handle: recall_handle.clone(),
                region_id: region_id.clone(),
                trace_on,
            };
            let answer = SendAnswer {
                host,
                positions: &positions,
                queue_id,
                queue_offset,
                transaction_id: transaction_id.as_deref(),
                recall_handle: recall_handle.as_deref(),
                region_id: &region_id,
                trace_on,
            };
            let serialization = if is_json { Serialization::Json } else { Serialization::Rocketmq };
            let mut listed = BytesMut::new();
            let frame = Frame::response(9, serialization, ResponseCode::Success).with_header(&header);
            frame.encode(&mut listed).expect("short enough");
            prop_assert_eq!(encoded(&answer, serialization), listed);
        }
    }
}
