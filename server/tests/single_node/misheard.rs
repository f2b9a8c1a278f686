//! What the group calls on a node, where a test may have it answer forwarded commits without serving them: as a leader that goes
//! away, is of an earlier build, or refuses.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Mutex;

use bytes::{BufMut, Bytes, BytesMut};
use folio_engine::queues::Arrival;
use folio_protocol::code::ResponseCode;
use folio_protocol::frame::{Frame, Serialization};
use folio_raft::group::Hooks;
use folio_raft::proposal::{Known, Question};
use folio_server::hooks::NodeHooks;

/// The kind byte of a forwarded commit: table in `server/src/hooks.rs`.
pub(crate) const FORWARDED_COMMIT: u8 = 4;

/// See the module.
#[derive(Default)]
pub(crate) struct Misheard {
    pub(crate) hooks: NodeHooks,
    answers: Mutex<VecDeque<Bytes>>,
}

/// An answer that does not decode: nobody knows what became of the request.
pub(crate) fn lost() -> Bytes {
    Bytes::new()
}

/// This node does not lead.
pub(crate) fn not_leader() -> Bytes {
    Bytes::from_static(&[1])
}

/// An answer for the client.
pub(crate) fn told(code: ResponseCode, remark: &str) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u64(0);
    Frame::response(0, Serialization::Json, code).with_remark(remark).encode(&mut out).expect("a frame");
    out.freeze()
}

impl Misheard {
    /// The next forwarded commits are answered so.
    pub(crate) fn answer(&self, answers: impl IntoIterator<Item = Bytes>) {
        self.answers.lock().expect("no panic").extend(answers);
    }

    /// How many of these answers are still to be given.
    pub(crate) fn left(&self) -> usize {
        self.answers.lock().expect("no panic").len()
    }

    /// From now on commits are served.
    pub(crate) fn clear(&self) {
        self.answers.lock().expect("no panic").clear();
    }
}

impl Hooks for Misheard {
    fn call(&self, from: u64, request: Bytes) -> Pin<Box<dyn Future<Output = Bytes> + Send + 'static>> {
        let is_commit = request.first() == Some(&FORWARDED_COMMIT);
        let answer = if is_commit { self.answers.lock().expect("no panic").pop_front() } else { None };
        match answer {
            Some(answer) => Box::pin(std::future::ready(answer)),
            None => self.hooks.call(from, request),
        }
    }

    fn knows(&self, question: Question) -> Known {
        self.hooks.knows(question)
    }

    fn applied(&self, arrivals: &[Arrival]) {
        self.hooks.applied(arrivals);
    }

    fn state_changed(&self) {
        self.hooks.state_changed();
    }
}
