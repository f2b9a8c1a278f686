//! Consumer groups that come into being because somebody consumes: RocketMQ's
//! `autoCreateSubscriptionGroup`, with the group's retry topic.
//!
//! Called by heartbeats on any node; the leader proposes.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use folio_protocol::names;
use folio_raft::log_rate_limiter::LogRateLimiter;
use folio_raft::proposal::ProposeError;
use folio_state::{Command, ConsumerGroup, CreateGroup, CreateTopic, Topic};
use tokio::time::{Instant, sleep};

use crate::broker::Broker;
use crate::error::ServerError;
use crate::request::Request;
use crate::{dispatch, peer};

/// How long a heartbeat waits for its group to exist; the next heartbeat tries again.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pause before the leader is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

const DONE: u8 = 0;
const NOT_LEADER: u8 = 1;
const FAILED: u8 = 2;

impl Broker {
    /// Whether a consumer group and its retry topic exist on this node.
    pub fn has_group(&self, group: &str) -> bool {
        let state = self.group.state();
        state.group(group).is_some() && state.topic(&names::retry_topic(group)).is_some()
    }

    /// Creates a consumer group and its retry topic unless they exist, from whatever node this is.
    pub async fn ensure_group(&self, group: &str) -> Result<(), ServerError> {
        names::check_group(group)?;
        let deadline = Instant::now() + PATIENCE;
        while !self.has_group(group) {
            match self.create_group(group).await {
                Err(ServerError::NoLeader) if Instant::now() < deadline => sleep(RETRY_PAUSE).await,
                Err(error) => return Err(error),
                // Created at the leader; this node has it when it has applied it.
                Ok(()) if Instant::now() < deadline => sleep(Duration::from_millis(1)).await,
                Ok(()) => return Ok(()),
            }
        }
        Ok(())
    }

    async fn create_group(&self, group: &str) -> Result<(), ServerError> {
        if self.leads() {
            return propose_group(self, group).await;
        }
        let leader = self.group.status().leader.filter(|leader| *leader != self.node_id());
        let leader = leader.ok_or(ServerError::NoLeader)?;
        let mut request = BytesMut::with_capacity(1 + group.len());
        request.put_u8(peer::ENSURE_GROUP);
        request.extend_from_slice(group.as_bytes());
        // Creating what exists changes nothing: an unknown outcome may be tried again.
        let answer =
            self.group.call(leader, request.freeze(), PATIENCE).await.map_err(|_| ServerError::NoLeader)?;
        match answer.first() {
            Some(&DONE) => Ok(()),
            Some(&FAILED) => Err(ServerError::Internal(String::from_utf8_lossy(&answer[1..]).into_owned())),
            _ => Err(ServerError::NoLeader),
        }
    }
}

static CREATED: LogRateLimiter = LogRateLimiter::new();

async fn propose_group(broker: &Broker, group: &str) -> Result<(), ServerError> {
    let config = ConsumerGroup::new(group);
    let retry = Topic::new(names::retry_topic(group), config.retry_queues);
    for command in [Command::from(CreateGroup(config)), CreateTopic(retry).into()] {
        match broker.group.execute(command).await {
            Ok(_) => {}
            Err(ProposeError::NotLeader { .. }) => return Err(ServerError::NoLeader),
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(left_out) = CREATED.admit() {
        tracing::info!(group, left_out, "consumer group created");
    }
    Ok(())
}

/// Creates the group that a request names and this leader does not know, and serves the request then:
/// RocketMQ's `autoCreateSubscriptionGroup`. A pull consumer pulls before its first heartbeat.
pub(crate) fn create_and_serve(broker: &Arc<Broker>, group: String, request: Request) {
    let broker = broker.clone();
    tokio::spawn(async move {
        match broker.ensure_group(&group).await {
            Ok(()) if broker.has_group(&group) => dispatch::route(&broker, request),
            // A name that cannot be created is a group that does not exist.
            Ok(()) | Err(ServerError::Name(_)) => request.reply.fail(ServerError::GroupNotExist(group)),
            Err(error) => request.reply.fail(error),
        }
    });
}

/// The leader's side of [`Broker::ensure_group`] on another node.
pub(crate) async fn serve_ensure(broker: &Arc<Broker>, group: &[u8]) -> Bytes {
    let Ok(group) = std::str::from_utf8(group) else { return failed("the group's name is not UTF-8") };
    if let Err(error) = names::check_group(group) {
        return failed(&error.to_string());
    }
    if !broker.leads() {
        return Bytes::from_static(&[NOT_LEADER]);
    }
    if broker.has_group(group) {
        return Bytes::from_static(&[DONE]);
    }
    match propose_group(broker, group).await {
        Ok(()) => Bytes::from_static(&[DONE]),
        Err(ServerError::NoLeader) => Bytes::from_static(&[NOT_LEADER]),
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(why: &str) -> Bytes {
    let mut answer = vec![FAILED];
    answer.extend_from_slice(why.as_bytes());
    answer.into()
}
