//! PULL (11, 361): the next messages of a queue, or a promise to answer when there are some.
//!
//! | what came of it | code |
//! |---|---|
//! | messages | 0 |
//! | nothing new, after waiting | 19 |
//! | messages, none the consumer wants | 20 |
//! | the offset lies outside the queue | 21 |
//!
//! What only the leader can tell, it is asked.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use folio_broker::error::BrokerError;
use folio_broker::pull::{Pull, Pulled, Puller, Status, Subscription, ToPull};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::ext::HeaderError;
use folio_protocol::flags::pull_sys_flag;
use folio_protocol::frame::Frame;
use folio_protocol::header::{
    Header, PullMessageHeader, PullMessageResponseHeader, UpdateConsumerOffsetHeader,
};

use super::creating::create_and_serve;
use crate::forward;
use crate::incoming::Incoming;
use crate::net::Channel;
use crate::remoting::Remoting;
use crate::reply::Reply;
use crate::request::Request;

/// The broker id of the leader, in routes and suggestions.
const LEADER: i64 = 0;

/// Serves one pull.
pub(crate) fn pull(remoting: &Arc<Remoting>, request: Request) {
    let header = match PullMessageHeader::from_ext(&request.frame.ext) {
        Ok(header) => header,
        Err(error) => return malformed(remoting, request, error),
    };
    let commit = commit_of(&header);
    match remoting.broker.check_pull(wish_of(header)) {
        Ok(pull) => serve(remoting, pull, commit, request),
        Err(BrokerError::GroupNotExist(group)) => create_and_serve(remoting, group, request),
        Err(BrokerError::AskLeader) => forward::forward(remoting, request),
        Err(error) => request.reply.fail(error),
    }
}

fn malformed(remoting: &Arc<Remoting>, request: Request, error: HeaderError) {
    if remoting.broker.leads() {
        request.reply.fail(error);
    } else {
        forward::forward(remoting, request);
    }
}

fn wish_of(header: PullMessageHeader) -> ToPull {
    let has = |flag| header.sys_flag & flag != 0;
    let wait = Duration::from_millis(u64::try_from(header.suspend_timeout_millis).unwrap_or(0));
    let subscription = has(pull_sys_flag::SUBSCRIPTION);
    ToPull {
        wait: has(pull_sys_flag::SUSPEND).then_some(wait),
        group: header.consumer_group,
        topic: header.topic,
        queue_id: header.queue_id,
        offset: header.queue_offset,
        messages_max: header.max_msg_nums,
        bytes_max: header.max_msg_bytes,
        subscription: subscription.then(|| Subscription {
            expression: header.subscription.unwrap_or_default(),
            kind: header.expression_type,
        }),
        sub_version: header.sub_version,
    }
}

fn serve(remoting: &Arc<Remoting>, pull: Pull, commit: Option<UpdateConsumerOffsetHeader>, request: Request) {
    if let Some(commit) = commit {
        store(remoting, commit, &request);
    }
    let puller = Waiting { remoting: remoting.clone(), request };
    remoting.broker.pull(pull, puller);
}

/// The consumer offset that a pull may bring along.
fn commit_of(header: &PullMessageHeader) -> Option<UpdateConsumerOffsetHeader> {
    let wanted = header.sys_flag & pull_sys_flag::COMMIT_OFFSET != 0;
    wanted.then(|| UpdateConsumerOffsetHeader {
        consumer_group: header.consumer_group.clone(),
        topic: header.topic.clone(),
        queue_id: header.queue_id,
        commit_offset: header.commit_offset,
    })
}

/// Stores a consumer offset, if it is news: as a oneway request of its own, which finds the leader wherever it is.
fn store(remoting: &Arc<Remoting>, commit: UpdateConsumerOffsetHeader, request: &Request) {
    let Some(channel) = request.channel() else { return };
    let (Ok(offset), Ok(queue)) = (u64::try_from(commit.commit_offset), u32::try_from(commit.queue_id))
    else {
        return;
    };
    let known = remoting.broker.group.state().offset(&commit.consumer_group, &commit.topic, queue);
    if known == Some(offset) {
        return;
    }
    let frame = Frame::request(RequestCode::UpdateConsumerOffset, &commit, Bytes::new()).oneway();
    let frame = Arc::new(Incoming(frame));
    let reply = Reply::to_client(channel.clone(), &frame);
    let (remote, is_operator) = (request.remote, request.is_operator);
    let (order, attempt, is_repeatable) = (None, None, false);
    remoting.dispatch(Request { frame, remote, is_operator, reply, order, attempt, is_repeatable });
}

/// A pull that is not answered yet.
struct Waiting {
    remoting: Arc<Remoting>,
    request: Request,
}

impl Puller for Waiting {
    type Connection = Channel;

    fn connection(&self) -> Option<&Channel> {
        self.request.channel()
    }

    fn hold(&mut self) {
        self.request.reply.hold();
    }

    fn held_bytes(&self) -> usize {
        self.request.frame.header_bytes()
    }

    fn answer(self, outcome: Result<Pulled, BrokerError>) {
        match outcome {
            Ok(pulled) => respond(self.request.reply, pulled),
            Err(BrokerError::AskLeader) => forward::forward(&self.remoting, self.request),
            Err(error) => self.request.reply.fail(error),
        }
    }

    fn gone(self) {
        self.request.reply.done();
    }
}

fn respond(reply: Reply, pulled: Pulled) {
    let code = match pulled.status {
        Status::Found => ResponseCode::Success,
        Status::NothingNew => ResponseCode::PullNotFound,
        Status::AskAgain => ResponseCode::PullRetryImmediately,
        Status::Moved => ResponseCode::PullOffsetMoved,
    };
    let header = PullMessageResponseHeader {
        suggest_which_broker_id: LEADER,
        next_begin_offset: pulled.next,
        min_offset: pulled.min as i64,
        max_offset: pulled.max as i64,
        offset_delta: None,
        topic_sys_flag: Some(pulled.topic_sys_flag),
        group_sys_flag: Some(pulled.group_sys_flag),
        forbidden_type: None,
    };
    reply.parts(code, &header, pulled.messages);
}
