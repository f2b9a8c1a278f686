//! The answer to one request: used once, in the request's serialization, wherever it came from.
//!
//! Invariants: reply.I1: every request that is not oneway is answered exactly once; a reply that is
//! dropped unused answers SYSTEM_ERROR, so nobody is left waiting. reply.I2: the client of a oneway request is
//! never answered. (The node that forwarded a oneway commit is: `turns.I1`.)

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use folio_protocol::code::ResponseCode;
use folio_protocol::fields::Fields;
use folio_protocol::frame::{Frame, Serialization};
use tokio::sync::oneshot;

use crate::answer::Answer;
use crate::error::ServerError;
use crate::incoming::outcome_of;
use crate::net::{Channel, Unanswered};
use crate::pending::Pending;

/// Bytes of a remark; RocketMQ's longest are a few lines.
const REMARK_BYTES_MAX: usize = 4 * 1024;

/// Hands a request out again that was certainly not proposed, or may be twice.
pub(crate) trait HandOut: Send + Sync {
    /// The request, and where its answer goes.
    fn again(self: Arc<Self>, pending: Pending, reply: Reply);
}

/// Where one answer goes.
pub(crate) struct Reply {
    to: Option<To>,
    opaque: i32,
    serialization: Serialization,
    oneway: bool,
    /// Whether the node that forwarded a oneway request is told what became of it.
    tells_node: bool,
    retry: Option<(Arc<dyn HandOut>, Pending)>,
    /// The remark where it may have been stored by an earlier attempt, of which nobody knows.
    doubt: Option<String>,
    /// Its number in the account of its connection, if it is a send of one.
    send: Option<u64>,
}

enum To {
    /// A client connected to this node.
    Client(Unanswered),
    /// Another node, which forwarded the request.
    Node(oneshot::Sender<Answer>),
}

impl Reply {
    /// To a client of this node.
    pub(crate) fn to_client(channel: Channel, request: &Frame) -> Self {
        Self::new(To::Client(channel.expect_answer(request)), request)
    }

    /// To the node that forwarded the request.
    pub(crate) fn to_node(sender: oneshot::Sender<Answer>, request: &Frame) -> Self {
        Self::new(To::Node(sender), request)
    }

    fn new(to: To, request: &Frame) -> Self {
        Self {
            to: Some(to),
            opaque: request.opaque,
            serialization: request.serialization,
            oneway: request.is_oneway(),
            tells_node: false,
            retry: None,
            doubt: None,
            send: None,
        }
    }

    /// Tells the account of the connection's sends what was answered.
    pub(crate) fn of_send(mut self, number: u64) -> Self {
        self.send = Some(number);
        self
    }

    /// Lets [`Reply::fail`] bring the request to the leader instead of answering "not leader".
    pub(crate) fn with_retry(mut self, by: Arc<dyn HandOut>, pending: Pending) -> Self {
        self.retry = Some((by, pending));
        self
    }

    /// Has the node that forwarded a oneway request told what becomes of it.
    pub(crate) fn tell_node(&mut self) {
        self.tells_node = true;
    }

    /// Notes that nobody knows what became of an attempt: from now on success is told, and instead of any refusal this remark.
    pub(crate) fn doubt(&mut self, remark: String) {
        self.doubt = Some(remark);
    }

    /// The connection it goes to, if that is one of this node's.
    pub(crate) fn channel(&self) -> Option<&Channel> {
        match &self.to {
            Some(To::Client(channel)) => Some(channel),
            Some(To::Node(_)) | None => None,
        }
    }

    /// The request waits for something that may never come: its connection may have others served meanwhile (net.I5).
    pub(crate) fn hold(&mut self) {
        if let Some(To::Client(unanswered)) = &mut self.to {
            unanswered.hold();
        }
    }

    /// Whether nobody waits for the answer.
    pub(crate) fn is_oneway(&self) -> bool {
        self.oneway
    }

    /// SUCCESS with a typed header.
    pub(crate) fn ok(self, header: &impl Fields, body: impl Into<Bytes>) {
        self.answer(ResponseCode::Success, None, header, body);
    }

    /// SUCCESS with neither header nor body.
    pub(crate) fn done(self) {
        let frame = self.frame(ResponseCode::Success);
        self.send(frame);
    }

    /// SUCCESS with a body and no header.
    pub(crate) fn body(self, body: impl Into<Bytes>) {
        let frame = self.frame(ResponseCode::Success).with_body(body);
        self.send(frame);
    }

    /// Any code with a typed header: PULL's "not found" carries offsets as its "found" does.
    pub(crate) fn answer(
        self,
        code: ResponseCode,
        remark: Option<String>,
        header: &impl Fields,
        body: impl Into<Bytes>,
    ) {
        let mut frame = self.frame(code).with_body(body);
        frame.remark = remark;
        self.send_with(frame, header);
    }

    /// Any code with a typed header and a body of many slices, which are written uncopied.
    pub(crate) fn parts(mut self, code: ResponseCode, header: &impl Fields, parts: Vec<Bytes>) {
        let head = self.frame(code);
        match self.to.take() {
            _ if self.oneway => self.silence(),
            Some(To::Client(channel)) => {
                if let Err(error) = channel.push_parts(&head, header, parts) {
                    self.to = Some(To::Client(channel));
                    self.error(
                        ResponseCode::SystemError,
                        format!("the answer does not fit a frame: {error}"),
                    );
                }
            }
            to => {
                let mut body = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
                parts.iter().for_each(|part| body.extend_from_slice(part));
                self.to = to;
                self.send_with(head.with_body(body.freeze()), header);
            }
        }
    }

    /// An error code and a text for the person who reads the client's log.
    pub(crate) fn error(self, code: ResponseCode, remark: impl Into<String>) {
        let frame = self.frame(code).with_remark(shortened(remark.into()));
        self.send(frame);
    }

    /// An error, with the code that `error.rs` chose for it. "Not leader" means nothing was proposed: the request goes to the
    /// leader, or back to the node that forwarded it here. A commit, and what may be asked twice, goes to the leader also where nobody
    /// knows what became of it, and a oneway commit where this node could not store it (`turns.I1`).
    pub(crate) fn fail(mut self, error: impl Into<ServerError>) {
        let error = error.into();
        let is_commit = self.retry.as_ref().is_some_and(|(_, pending)| pending.turn.is_some());
        let of_commit = error.is_outcome_unknown() || (self.oneway && error.is_unavailable());
        let is_repeatable = self.retry.as_ref().is_some_and(|(_, pending)| pending.is_repeatable);
        let again = error.is_not_leader()
            || (is_commit && of_commit)
            || (is_repeatable && error.is_outcome_unknown());
        if let Some((by, pending)) = self.retry.take_if(|_| again) {
            if error.is_outcome_unknown() {
                self.doubt(error.to_string());
            }
            return by.again(pending, self);
        }
        if error.is_not_leader()
            && let Some(To::Node(sender)) = self.to.take_if(|to| matches!(to, To::Node(_)))
        {
            // The forwarding node gave up meanwhile; nobody waits.
            drop(sender.send(Answer::NotLeader));
            return;
        }
        self.error(error.code(), error.to_string());
    }

    /// An answer that another node made.
    pub(crate) fn relay(self, mut frame: Frame) {
        frame.opaque = self.opaque;
        frame.serialization = self.serialization;
        self.send(frame);
    }

    /// A response frame to be finished by the caller and handed to [`Reply::send`].
    pub(crate) fn frame(&self, code: ResponseCode) -> Frame {
        Frame::response(self.opaque, self.serialization, code)
    }

    /// Sends a frame made by [`Reply::frame`].
    pub(crate) fn send(mut self, mut frame: Frame) {
        if let Some(remark) = self.doubt.take().filter(|_| frame.code != ResponseCode::Success.code()) {
            frame = self.frame(ResponseCode::SystemError).with_remark(remark);
        }
        let fields = std::mem::take(&mut frame.ext);
        self.send_with(frame, &fields);
    }

    /// Sends a frame without fields of its own, with these.
    fn send_with(mut self, frame: Frame, fields: &impl Fields) {
        if self.is_silent() {
            return self.silence();
        }
        match self.to.take() {
            Some(To::Client(channel)) => {
                if let Err(error) = channel.push_with(&frame, fields) {
                    let remark = format!("the answer does not fit a frame: {error}");
                    let refused = self.frame(ResponseCode::SystemError).with_remark(remark);
                    drop(channel.push(&refused));
                }
                // sends.I1: behind the answer.
                if let Some(number) = self.send {
                    channel.sends().end(number, outcome_of(frame.code));
                }
            }
            Some(To::Node(sender)) => drop(sender.send(Answer::Frame(frame.with_header(fields).into()))),
            None => {}
        }
    }

    fn is_silent(&self) -> bool {
        self.oneway && !self.tells_node
    }

    fn silence(&mut self) {
        if let Some(To::Node(sender)) = self.to.take() {
            drop(sender.send(Answer::Silence));
        }
    }
}

/// A remark may repeat what the client sent: a name of sixteen megabytes comes back as its first words.
fn shortened(mut remark: String) -> String {
    if remark.len() > REMARK_BYTES_MAX {
        remark.truncate(remark.floor_char_boundary(REMARK_BYTES_MAX));
        remark.push_str("...");
    }
    remark
}

impl Drop for Reply {
    fn drop(&mut self) {
        let Some(to) = self.to.take() else { return };
        let unused = Self {
            to: Some(to),
            opaque: self.opaque,
            serialization: self.serialization,
            oneway: self.oneway,
            tells_node: self.tells_node,
            retry: None,
            doubt: self.doubt.take(),
            send: self.send,
        };
        if !unused.oneway {
            tracing::error!(opaque = self.opaque, "a request was dropped unanswered");
        }
        unused.error(ResponseCode::SystemError, "the server dropped the request");
    }
}
