//! The leader's answer to a forwarded request, big-endian:
//!
//! | part | bytes | meaning |
//! |---|---|---|
//! | kind | 1 | 0 an answer follows, 1 this node does not lead, 2 a oneway request was taken (a commit: by a node of an earlier build) |
//! | position | 8 | where the log ends that the leader has applied |
//! | frame | rest | the answer |

use bytes::{Buf, BufMut, Bytes, BytesMut};
use folio_protocol::code::ResponseCode;
use folio_protocol::frame::Frame;

/// What came of a forwarded request at the leader.
pub(crate) enum Answer {
    /// Answered.
    Frame(Box<Frame>),
    /// Not proposed: that node does not lead.
    NotLeader,
    /// Taken; a oneway request has no answer.
    Silence,
}

/// What the leader said to a request.
pub(crate) enum Asked {
    Answered(Box<Frame>),
    Silent,
    NotProposed,
    Unknown(String),
}

/// A frame that takes all the bytes.
pub(crate) fn decode_frame(bytes: Bytes) -> Option<Frame> {
    let mut buffer = BytesMut::from(bytes);
    let frame = Frame::decode(&mut buffer).ok()??;
    buffer.is_empty().then_some(frame)
}

/// The answer of a node that cannot serve anything yet.
pub(crate) fn not_leader() -> Bytes {
    encode_answer(Answer::NotLeader, 0)
}

/// `applied`: where the log ends that this node has applied.
pub(crate) fn encode_answer(answer: Answer, applied: u64) -> Bytes {
    let mut out = BytesMut::new();
    match answer {
        Answer::Frame(frame) => {
            out.put_u8(0);
            out.put_u64(applied);
            if let Err(error) = frame.encode(&mut out) {
                let refused = frame_too_large(&frame, &error.to_string());
                // A remark of two lines fits.
                drop(refused.encode(&mut out));
            }
        }
        Answer::NotLeader => out.put_u8(1),
        Answer::Silence => out.put_u8(2),
    }
    out.freeze()
}

fn frame_too_large(frame: &Frame, why: &str) -> Frame {
    let code = ResponseCode::SystemError;
    Frame::response(frame.opaque, frame.serialization, code)
        .with_remark(format!("the answer does not fit a frame: {why}"))
}

/// The answer, and up to where the leader had applied the log by then.
pub(crate) fn decode_answer(mut bytes: Bytes) -> (u64, Asked) {
    let unreadable = || (0, Asked::Unknown("the leader's answer does not decode".to_owned()));
    match bytes.try_get_u8() {
        Ok(0) => match (bytes.try_get_u64(), decode_frame(bytes)) {
            (Ok(applied), Some(frame)) => (applied, Asked::Answered(frame.into())),
            _ => unreadable(),
        },
        Ok(1) => (0, Asked::NotProposed),
        Ok(2) => (0, Asked::Silent),
        _ => unreadable(),
    }
}
