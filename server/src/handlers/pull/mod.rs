//! PULL (11, 361): the next messages of a queue, or a promise to answer when there are some.
//!
//! | where the offset stands | code | next offset |
//! |---|---|---|
//! | messages there | 0 | after the last unit looked at |
//! | messages there, none the consumer wants | 20 | after the last unit looked at |
//! | after the last message, or 0 in a queue that never had one | 19, after waiting | the same |
//! | before the first message | 21 | the first |
//! | beyond the end | 21 | the end |
//! | not 0 in a queue that never had a message | 21 | 0 |
//!
//! Any node serves pulls of what it has applied. Whether an offset lies *outside* the queue only the leader
//! can tell, and only after it has applied everything committed before it was elected: a replica that is
//! behind would send a consumer back in time. So a leader proves first that it leads and has applied all that was
//! acknowledged, without an entry in the log (`Group::confirm`), and a follower waits a moment and then asks the
//! leader. For the same reason a follower refuses nothing itself.
//!
//! Recent messages are answered as slices of the log's memory, uncopied. What may be on disk only is read apart from the
//! runtime's threads, once there is memory for it, and what is old besides when its turn has come (`on_disk`).
//!
//! - `pull.I1`: a message is answered only after its topic, queue and offset were compared with what was asked.

mod hold;
mod mended;
mod on_disk;
mod read;
mod scan;
mod subject;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use folio_broker::clients::ClientTable;
use folio_protocol::body::{MessageModel, SubscriptionData};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::flags::pull_sys_flag;
use folio_protocol::frame::Frame;
use folio_protocol::header::{
    Header, PullMessageHeader, PullMessageResponseHeader, UpdateConsumerOffsetHeader,
};
use folio_raft::proposal::ProposeError;

pub use self::hold::Parked;
use self::hold::park;
pub(crate) use self::hold::{closed, release_all};
use self::mended::unreadable;
use self::read::Age;
use self::scan::{Batch, Limits, Place, place};
use self::subject::{Consumers, Rules, Subject, subject};
use crate::broker::Broker;
use crate::error::ServerError;
use crate::incoming::Incoming;
use crate::reply::Reply;
use crate::request::Request;
use crate::{dispatch, forward, groups};

/// A pull is held at most this long, whatever it asks for; clients ask for 15 to 20 s.
const SUSPEND_MAX: Duration = Duration::from_secs(120);
/// How long a follower waits for what the leader seems to have and it has not.
const CATCH_UP: Duration = Duration::from_secs(1);
/// Pause before an offset is answered that could not be checked, so that the client does not spin.
const UNCHECKED_PAUSE: Duration = Duration::from_millis(100);
/// The broker id of the leader, in routes and suggestions.
const LEADER: i64 = 0;

/// A pull that may be served.
struct Pull {
    header: PullMessageHeader,
    subject: Subject,
    limits: Limits,
}

/// How often a pull was looked at, and with what certainty.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// It may still be held.
    First,
    /// It was held; now it is answered.
    Held,
    /// This node leads and has applied everything: even "outside the queue" may be answered.
    Sure,
}

impl Pull {
    fn queue(&self) -> (&str, u32) {
        (&self.header.topic, self.subject.queue)
    }
}

impl Consumers for ClientTable {
    fn subscription(&self, group: &str, topic: &str) -> Option<Arc<SubscriptionData>> {
        ClientTable::subscription(self, group, topic)
    }

    fn is_broadcasting(&self, group: &str) -> bool {
        self.group(group).is_some_and(|view| view.message_model == MessageModel::Broadcasting)
    }
}

/// Serves one pull.
pub(crate) fn pull(broker: &Arc<Broker>, request: Request) {
    match prepare(broker, &request) {
        Ok(pull) => {
            commit(broker, &pull.header, &request);
            answer(broker, pull, request, Pass::First);
        }
        Err(ServerError::GroupNotExist(group)) if broker.leads() => {
            groups::create_and_serve(broker, group, request);
        }
        Err(error) if broker.leads() => request.reply.fail(error),
        // The topic, the group or the subscription may be news that has not come here yet.
        Err(_) => forward::forward(broker, request),
    }
}

fn prepare(broker: &Broker, request: &Request) -> Result<Pull, ServerError> {
    let mut header = PullMessageHeader::from_ext(&request.frame.ext)?;
    let state = broker.group.state();
    let broker_readable = broker.settings.permission.is_readable();
    let rules = Rules { state: &state, identity: &broker.identity, broker_readable };
    let subject = subject(&rules, &broker.clients, &header)?;
    let limits = Limits::of(header.max_msg_nums, header.max_msg_bytes);
    // A pull may be held for long: of the texts in its header only the names are needed from here on.
    (header.subscription, header.expression_type, header.proxy_forward_client_id) = (None, None, None);
    Ok(Pull { header, subject, limits })
}

/// Stores the consumer offset that a pull may bring along, if it is news: as a oneway request of its own,
/// which finds the leader wherever it is.
fn commit(broker: &Arc<Broker>, header: &PullMessageHeader, request: &Request) {
    let (group, topic) = (&header.consumer_group, &header.topic);
    let Some(channel) = request.channel() else { return };
    let (Ok(offset), Ok(queue)) = (u64::try_from(header.commit_offset), u32::try_from(header.queue_id))
    else {
        return;
    };
    let wanted = header.sys_flag & pull_sys_flag::COMMIT_OFFSET != 0;
    if !wanted || broker.group.state().offset(group, topic, queue) == Some(offset) {
        return;
    }
    let commit = UpdateConsumerOffsetHeader {
        consumer_group: group.clone(),
        topic: topic.clone(),
        queue_id: header.queue_id,
        commit_offset: header.commit_offset,
    };
    let frame = Frame::request(RequestCode::UpdateConsumerOffset, &commit, Bytes::new()).oneway();
    let reply = Reply::to_client(channel.clone(), &frame);
    let frame = Arc::new(Incoming(frame));
    let (remote, is_operator) = (request.remote, request.is_operator);
    dispatch::dispatch(broker, Request { frame, remote, is_operator, reply, order: None, attempt: None });
}

fn answer(broker: &Arc<Broker>, pull: Pull, request: Request, pass: Pass) {
    let bounds = broker.group.queues().bounds(&pull.header.topic, pull.subject.queue);
    let offset = pull.header.queue_offset;
    match place(bounds, offset) {
        Place::Within => found(broker, pull, request),
        Place::End => nothing(broker, pull, request, pass),
        Place::Empty if offset == 0 => nothing(broker, pull, request, pass),
        Place::Empty | Place::Beyond => outside(broker, pull, request, pass),
        Place::Below if broker.leads() => {
            let min = bounds.map_or(0, |(min, _)| min);
            respond(broker, &pull, request, ResponseCode::PullOffsetMoved, min as i64, Vec::new());
        }
        Place::Below => forward::forward(broker, request),
    }
}

/// There are messages at the offset.
fn found(broker: &Arc<Broker>, pull: Pull, request: Request) {
    let from = pull.header.queue_offset as u64;
    let batch = match read::choose(broker, pull.queue(), from, &pull.subject.filter, pull.limits) {
        Ok(batch) => batch,
        Err(error) => return unreadable(broker, pull, request, error),
    };
    let age = read::age(broker, &batch);
    match age {
        Age::Fresh => {
            let parts = read::bytes(broker, pull.queue(), &batch);
            respond_found(broker, pull, request, &batch, parts);
        }
        Age::Recent | Age::Old => on_disk::found(broker.clone(), pull, request, batch, age),
    }
}

fn respond_found(
    broker: &Arc<Broker>,
    pull: Pull,
    request: Request,
    batch: &Batch,
    parts: Result<Vec<Bytes>, ServerError>,
) {
    let next = batch.next as i64;
    match parts {
        Ok(parts) if batch.messages > 0 => {
            respond(broker, &pull, request, ResponseCode::Success, next, parts);
        }
        Ok(_) => respond(broker, &pull, request, ResponseCode::PullRetryImmediately, next, Vec::new()),
        Err(error) => unreadable(broker, pull, request, error),
    }
}

fn expired(broker: &Broker, pull: &Pull) -> bool {
    let bounds = broker.group.queues().bounds(&pull.header.topic, pull.subject.queue);
    place(bounds, pull.header.queue_offset) == Place::Below
}

/// The next message will answer it: hold it if it wants that.
fn nothing(broker: &Arc<Broker>, pull: Pull, request: Request, pass: Pass) {
    let wait = Duration::from_millis(u64::try_from(pull.header.suspend_timeout_millis).unwrap_or(0));
    let may_wait = pull.header.sys_flag & pull_sys_flag::SUSPEND != 0 && !wait.is_zero();
    if pass == Pass::First && may_wait && !request.is_forwarded() {
        park(broker, pull, request, wait.min(SUSPEND_MAX));
    } else {
        let same = pull.header.queue_offset;
        respond(broker, &pull, request, ResponseCode::PullNotFound, same, Vec::new());
    }
}

/// The offset is beyond all this node knows.
fn outside(broker: &Arc<Broker>, pull: Pull, request: Request, pass: Pass) {
    let leads = broker.leads();
    if pass == Pass::Sure {
        let max =
            broker.group.queues().bounds(&pull.header.topic, pull.subject.queue).map_or(0, |(_, max)| max);
        respond(broker, &pull, request, ResponseCode::PullOffsetMoved, max as i64, Vec::new());
    } else if leads {
        drop(tokio::spawn(make_sure(broker.clone(), pull, request)));
    } else if pass == Pass::First && !request.is_forwarded() {
        park(broker, pull, request, CATCH_UP);
    } else {
        forward::forward(broker, request);
    }
}

/// Proves that this node leads and has applied everything acknowledged, and looks again.
async fn make_sure(broker: Arc<Broker>, pull: Pull, request: Request) {
    match broker.group.confirm().await {
        Ok(()) => answer(&broker, pull, request, Pass::Sure),
        // A leader without a quorum is not replaced yet: there is nobody to ask.
        Err(ProposeError::NotLeader { .. }) if !broker.leads() || request.is_forwarded() => {
            forward::forward(&broker, request);
        }
        Err(_) => {
            tokio::time::sleep(UNCHECKED_PAUSE).await;
            let same = pull.header.queue_offset;
            respond(&broker, &pull, request, ResponseCode::PullNotFound, same, Vec::new());
        }
    }
}

fn respond(broker: &Broker, pull: &Pull, request: Request, code: ResponseCode, next: i64, parts: Vec<Bytes>) {
    let bounds = broker.group.queues().bounds(&pull.header.topic, pull.subject.queue);
    let (min, max) = bounds.unwrap_or((0, 0));
    let header = PullMessageResponseHeader {
        suggest_which_broker_id: LEADER,
        next_begin_offset: next,
        min_offset: min as i64,
        max_offset: max as i64,
        offset_delta: None,
        topic_sys_flag: Some(pull.subject.topic_sys_flag),
        group_sys_flag: Some(pull.subject.group_sys_flag),
        forbidden_type: None,
    };
    request.reply.parts(code, &header, parts);
}
