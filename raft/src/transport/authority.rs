//! Who may send what, once the handshake is done.
//!
//! | request | from |
//! |---|---|
//! | append, snapshot | the leader that its vote names, unless this node follows another one in that term |
//! | vote, pre-vote | the candidate that its vote names |
//! | transfer | the leader that this node follows |
//! | server call | a member |
//! | fence | any node of the group; one that is no member gets one every [`FENCE_INTERVAL`] |
//! | summary, founding | any node of the cluster: without them nobody could join |
//! | record, stored snapshot, room | any node of the group: they change nothing |
//!
//! **Why appends, snapshots and votes are not held against the members.** A node's own log says who the members were when it
//! last heard of them. While it was down all others may have been replaced; the leader it meets then is no member as it knows
//! them, and only from that leader can it learn better. A candidate may need its vote as well. So Raft (section 4.1 of its
//! thesis) has a server take both without looking at its configuration, and that is safe: a leader has a majority of the
//! members as *its* log has them, and a candidate whose log is older than this node's membership is refused for its log. Were
//! unknown ids turned away, a node could be cut off from its group for ever. What keeps strangers out is the cluster's secret:
//! with it a caller is some node of the cluster. Without it an id proves nothing, and a member's is as easily said as another.
//!
//! A server call is another matter. Client tables, forwarded requests and questions between servers are only made by members;
//! a node that does not know a new one yet is told again a moment later, and Raft does not wait for it.
//!
//! - `peer.I4`: nobody speaks for another node: a vote, an append, a snapshot or a transfer is taken only from the node that it
//!   names, and of two leaders of one term only from the one this node follows.
//! - `peer.I6`: a node that is no member as this node's log has them changes nothing but the Raft log: its calls are refused, as
//!   long as this node knows the members and is not itself catching up.

use std::io;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::time::{Instant, sleep_until};

use super::peer::Peers;
use super::wire::{AppendHead, Kind, SnapshotBody, TransferBody, VoteBody, invalid};
use crate::codec::{self, WireVote};
use crate::types::Vote;

/// Between two fences for nodes that are no members: each is an entry in the log.
const FENCE_INTERVAL: Duration = Duration::from_millis(100);

fn not_its_own(what: &str, caller: u64, names: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("peer.I4: {what} from node {caller} in the name of node {names}"),
    )
}

impl Peers {
    pub(super) fn own_vote(&self) -> io::Result<Option<Vote>> {
        let own = self.shared.log.vote().map(|bytes| codec::decode_vote(&bytes)).transpose();
        own.map_err(io::Error::other)
    }

    /// `peer.I4`, `peer.I5`
    fn check_leader(&self, what: &str, caller: u64, vote: WireVote) -> io::Result<()> {
        if vote.node() != caller {
            return Err(not_its_own(what, caller, vote.node()));
        }
        if !vote.is_committed() {
            return Err(invalid(format!("peer.I4: {what} of a node that does not lead")));
        }
        self.shared.check(&vote)?;
        let follows = self.own_vote()?.filter(|own| own.committed && own.leader_id.term == vote.term());
        match follows {
            Some(own) if own.leader_id.voted_for != caller => Err(invalid(format!(
                "peer.I4: {what} from node {caller} in term {}, in which node {} leads",
                vote.term(),
                own.leader_id.voted_for
            ))),
            _ => Ok(()),
        }
    }

    pub(super) fn check_append(&self, caller: u64, head: &AppendHead) -> io::Result<()> {
        self.check_leader("an append", caller, head.vote)?;
        for id in [head.prev, head.commit, head.acknowledged].iter().flatten() {
            self.shared.check(id)?;
            if id.term() > head.vote.term() {
                return Err(invalid("peer.I5: an append that names an entry of a later term than its own"));
            }
        }
        Ok(())
    }

    pub(super) fn check_snapshot(&self, caller: u64, body: &SnapshotBody) -> io::Result<()> {
        self.check_leader("a snapshot", caller, body.vote)?;
        self.shared.check(&body.last)?;
        self.shared.check(&body.membership_log_id)
    }

    pub(super) fn check_candidate(&self, caller: u64, body: &VoteBody) -> io::Result<()> {
        if body.vote.node() != caller {
            return Err(not_its_own("a request for votes", caller, body.vote.node()));
        }
        if body.vote.is_committed() {
            return Err(invalid("peer.I4: a request for votes by a leader"));
        }
        self.shared.check(&body.vote)?;
        self.shared.check(&body.last)?;
        if body.last.is_some_and(|last| last.term() > body.vote.term()) {
            return Err(invalid("peer.I5: a candidate whose log is of a later term than its own"));
        }
        Ok(())
    }

    pub(super) fn check_transfer(&self, caller: u64, body: &TransferBody) -> io::Result<()> {
        self.check_leader("a transfer of leadership", caller, body.from)?;
        self.shared.check(&body.last)
    }

    /// `peer.I6`, for the requests whose body says nothing of it. May wait for a turn.
    pub(super) async fn check_kind(&self, caller: u64, kind: Kind) -> io::Result<()> {
        match kind {
            Kind::Call if !self.may_call(caller) => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("peer.I6: node {caller} is no member of the group, as far as this node knows"),
            )),
            Kind::Fence if !self.is_member(caller) => {
                let mut last = self.last_fence.lock().await;
                if let Some(last) = *last {
                    sleep_until(last + FENCE_INTERVAL).await;
                }
                *last = Some(Instant::now());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn may_call(&self, caller: u64) -> bool {
        self.is_member(caller) || self.founding.refuses_votes() || !self.knows_members()
    }

    /// Whether a node is a member as this node's log has them; before openraft is up, and before there are any, as the
    /// configuration has them.
    pub(super) fn is_member(&self, id: u64) -> bool {
        let of_log = self
            .raft
            .get()
            .is_some_and(|raft| raft.metrics().borrow_watched().membership_config.get_node(&id).is_some());
        of_log || (!self.knows_members() && self.born.contains(&id))
    }

    fn knows_members(&self) -> bool {
        self.raft
            .get()
            .is_some_and(|raft| raft.metrics().borrow_watched().membership_config.nodes().next().is_some())
    }
}
