//! Clients register and leave: what heartbeats and unregistrations change, and who is told.
//!
//! When a group changes, its members are told at once, but for the one that has just joined: that one a moment later.

use std::time::Duration;

use folio_protocol::body::HeartbeatData;
use folio_raft::log_rate_limiter::LogRateLimiter;

use crate::broker::Broker;
use crate::clients::{Duplicate, Notice, Software};
use crate::connection::Connection;
use crate::error::BrokerError;
use crate::gossip;

/// When a client that has joined a group is told that the group changed. Clients rebalance at most once a second.
const NEWCOMER_TOLD_AFTER: Duration = Duration::from_secs(1);

/// What a heartbeat came to.
#[derive(Debug)]
pub struct Registered {
    /// Whether some group now has other members or subscriptions, or a subscription is missing.
    pub sub_changed: bool,
    /// Its consumer groups that this node does not know: create them with [`Broker::ensure_group`] before the client is
    /// answered, so that its first pull finds them.
    pub missing: Vec<String>,
}

impl Broker {
    /// Registers what a client says of itself, all of it or nothing.
    pub fn heartbeat(
        &self,
        connection: &(impl Connection + Clone),
        software: Software,
        data: HeartbeatData,
    ) -> Result<Registered, BrokerError> {
        let groups = data.consumer_data_set.iter().map(|consumer| consumer.group_name.clone());
        let missing = groups.filter(|group| !self.has_group(group)).collect();
        let heard = self.clients.heartbeat(connection, software, data)?;
        Notice::tell(heard.notices);
        tell_later(heard.later);
        heard.duplicates.iter().for_each(warn);
        Ok(Registered { sub_changed: heard.sub_changed, missing })
    }

    /// Takes a client of this connection out of a producer and a consumer group.
    pub fn unregister(
        &self,
        connection: u64,
        client_id: &str,
        producer_group: Option<&str>,
        consumer_group: Option<&str>,
    ) {
        Notice::tell(self.clients.unregister(connection, client_id, producer_group, consumer_group));
    }

    /// Waits until no living node lists a client any more that has left this one (`gossip.I1`).
    pub async fn all_have_heard(&self) {
        gossip::tell_all(self).await;
    }

    /// A connection is gone: nothing of its client's is kept.
    pub fn closed(&self, connection: &impl Connection) {
        Notice::tell(self.clients.closed(connection.id()));
        self.polls.closed(connection.id());
    }
}

fn tell_later(notices: Vec<Notice>) {
    if notices.is_empty() {
        return;
    }
    tokio::spawn(async move {
        tokio::time::sleep(NEWCOMER_TOLD_AFTER).await;
        Notice::tell(notices.into_iter().filter(Notice::is_open).collect());
    });
}

fn warn(duplicate: &Duplicate) {
    static LINES: LogRateLimiter = LogRateLimiter::new();
    let Some(left_out) = LINES.admit() else { return };
    let Duplicate { group, client_id, addresses: [one, other] } = duplicate;
    tracing::warn!(
        left_out,
        group,
        client_id,
        %one,
        %other,
        "two processes use one client id, so both consume the same queues: give each an instanceName or a clientIP of its own"
    );
}
