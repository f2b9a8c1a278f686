//! Consumer groups: create, change, delete; and those that come into being because somebody consumes, with their retry topic:
//! RocketMQ's `autoCreateSubscriptionGroup`.
//!
//! The latter is called by heartbeats on any node; the leader proposes. Not here: who is in a group right now (`clients/`).

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use folio_protocol::names;
use folio_raft::log_rate_limiter::LogRateLimiter;
use folio_raft::proposal::ProposeError;
use folio_state::{Command, ConsumerGroup, CreateGroup, CreateTopic, DeleteGroup, PutGroup, Topic};
use tokio::time::{Instant, sleep, timeout};

use crate::broker::Broker;
use crate::changes::execute;
use crate::error::BrokerError;
use crate::{peers, rights};

/// How long a heartbeat waits for its group to exist; the next heartbeat tries again.
const ENSURE_TIMEOUT: Duration = Duration::from_secs(3);
/// Queues of a group's retry topic at most.
const RETRY_QUEUES_MAX: u32 = 1_024;
/// Pause before the leader is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How long a node waits until it has applied what the leader has created, before the leader is asked again: the group may have
/// been deleted meanwhile.
const APPLIED_TIMEOUT: Duration = Duration::from_millis(500);

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
    pub async fn ensure_group(&self, group: &str) -> Result<(), BrokerError> {
        names::check_group(group)?;
        let deadline = Instant::now() + ENSURE_TIMEOUT;
        while !self.has_group(group) {
            match self.create_group(group).await {
                Err(BrokerError::NoLeader) if Instant::now() < deadline => sleep(RETRY_PAUSE).await,
                Err(error) => return Err(error),
                // Created at the leader; this node has it when it has applied it.
                Ok(()) if Instant::now() < deadline => {
                    let applied = self.group.applied_until(|| self.has_group(group));
                    drop(timeout(APPLIED_TIMEOUT, applied).await);
                }
                Ok(()) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Creates or changes groups; all are checked before the first is changed. Only an operator changes one that exists.
    pub async fn change_groups(
        self: &Arc<Self>,
        groups: Vec<ConsumerGroup>,
        is_operator: bool,
    ) -> Result<(), BrokerError> {
        {
            let state = self.group.state();
            for group in &groups {
                check(group)?;
                if !is_operator {
                    rights::check_group_change(state.group(&group.name), group)?;
                }
            }
        }
        let commands = groups.into_iter().map(|group| PutGroup(group).into()).collect();
        execute(self, commands, is_operator).await
    }

    /// Deletes a group. A group that does not exist is deleted too, as upstream.
    pub async fn delete_group(
        self: &Arc<Self>,
        name: String,
        clean_offsets: bool,
        is_operator: bool,
    ) -> Result<(), BrokerError> {
        execute(self, vec![DeleteGroup { name, clean_offsets }.into()], is_operator).await
    }

    async fn create_group(&self, group: &str) -> Result<(), BrokerError> {
        if self.leads() {
            return propose_group(self, group).await;
        }
        let leader = self.group.status().leader.filter(|leader| *leader != self.node_id());
        let leader = leader.ok_or(BrokerError::NoLeader)?;
        let mut request = BytesMut::with_capacity(1 + group.len());
        request.put_u8(peers::ENSURE_GROUP);
        request.extend_from_slice(group.as_bytes());
        // Creating what exists changes nothing: an unknown outcome may be tried again.
        let answer = self
            .group
            .call(leader, request.freeze(), ENSURE_TIMEOUT)
            .await
            .map_err(|_| BrokerError::NoLeader)?;
        match answer.first() {
            Some(&DONE) => Ok(()),
            Some(&FAILED) => Err(BrokerError::Internal(String::from_utf8_lossy(&answer[1..]).into_owned())),
            _ => Err(BrokerError::NoLeader),
        }
    }
}

fn check(group: &ConsumerGroup) -> Result<(), BrokerError> {
    names::check_group(&group.name)?;
    if group.retry_queues > RETRY_QUEUES_MAX {
        return Err(BrokerError::InvalidParameter(format!(
            "group[{}] with {} retry queues, the limit is {RETRY_QUEUES_MAX}",
            group.name, group.retry_queues
        )));
    }
    Ok(())
}

static CREATED: LogRateLimiter = LogRateLimiter::new();

async fn propose_group(broker: &Broker, group: &str) -> Result<(), BrokerError> {
    let config = ConsumerGroup::new(group);
    let retry = Topic::new(names::retry_topic(group), config.retry_queues);
    for command in [Command::from(CreateGroup(config)), CreateTopic(retry).into()] {
        match broker.group.execute(command).await {
            Ok(_) => {}
            Err(ProposeError::NotLeader { .. }) => return Err(BrokerError::NoLeader),
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(left_out) = CREATED.admit() {
        tracing::info!(group, left_out, "consumer group created");
    }
    Ok(())
}

/// The leader's side of [`Broker::ensure_group`] on another node.
pub(crate) async fn serve_ensure(broker: &Broker, group: &[u8]) -> Bytes {
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
        Err(BrokerError::NoLeader) => Bytes::from_static(&[NOT_LEADER]),
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(why: &str) -> Bytes {
    let mut answer = vec![FAILED];
    answer.extend_from_slice(why.as_bytes());
    answer.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn illegal_names_and_too_many_retry_queues_are_refused() {
        assert_eq!(check(&ConsumerGroup::new("g")), Ok(()));
        for name in ["", "a b", &"g".repeat(121)] {
            assert!(check(&ConsumerGroup::new(name)).is_err(), "{name:?}");
        }
        assert!(check(&ConsumerGroup { retry_queues: 1_025, ..ConsumerGroup::new("g") }).is_err());
    }
}
