//! A group's end of the Raft port: which callers it lets in, and their connections.
//!
//! - `peer.I1`: a connection speaks only after a handshake ([`super::handshake`]) for this cluster, group, node and segment size;
//!   and a peer that has not named this group's id (`group::group_id`) is told what this node is and nothing else.
//!
//! Not here: the port itself, which all groups of a node share ([`crate::port`]).

use std::io;
use std::sync::Arc;

use folio_state::FEATURE_LEVEL;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::admission::Ticket;
use super::frames::{FrameReader, FrameWriter};
use super::handshake::Caller;
use super::peer::{Peer, Peers};
use super::watchdog;
use super::wire::Purpose;
use crate::group::group_id::other_group;
use crate::group::tasks;

/// A peer's `host:port`: the longest name that DNS knows, and a port.
const ADDRESS_BYTES_MAX: usize = 253 + 6;

/// Why a caller that has proved itself is not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Mismatch {
    /// The names of the groups that the node hosts, and the one that the hello names.
    #[error("this node hosts {}, the peer looks for group {wanted:?}", .hosted.join(", "))]
    NotHosted { hosted: Vec<String>, wanted: String },
    /// Group and cluster.
    #[error("this is group {} of cluster {}, the peer looks for {:?} of {:?}", .here.0, .here.1, .wanted.0, .wanted.1)]
    Names { here: (String, String), wanted: (String, String) },
    #[error("this is node {here}, the peer looks for node {wanted}")]
    Node { here: u64, wanted: u64 },
    #[error("this is node {0}: another one has the same id")]
    SameId(u64),
    #[error(
        "segments here are {here} bytes, the peer's are {there}: they must be the same on every node of a group"
    )]
    SegmentBytes { here: u64, there: u64 },
    #[error("an address of {0} bytes")]
    Address(usize),
    /// `features.I2`
    #[error(
        "the group uses feature level {uses}, the peer's build supports levels up to {supports}: install the build of the other \
         nodes there"
    )]
    PeerTooOld { uses: u16, supports: u16 },
    /// `features.I2`
    #[error(
        "the peer's group uses feature level {uses}, the build here supports levels up to {FEATURE_LEVEL}: install the build of \
         the other nodes here"
    )]
    TooOldHere { uses: u16 },
    #[error("{told}")]
    GroupId { told: String, is_news: bool },
}

impl Mismatch {
    /// Whether the log should say it.
    pub(crate) fn is_news(&self) -> bool {
        !matches!(self, Mismatch::GroupId { is_news: false, .. })
    }
}

/// A connection whose caller was let in.
pub(crate) struct Admitted {
    pub(crate) caller: Caller,
    pub(crate) reader: FrameReader,
    pub(crate) writer: FrameWriter,
    pub(crate) ticket: Ticket,
}

impl Peers {
    /// Serves the connections that the port brings, until the task is aborted, and ends them then: a peer would go on asking a
    /// group that has stopped.
    pub(crate) async fn serve_all(self: Arc<Self>, mut admitted: mpsc::Receiver<Admitted>) {
        let mut connections = JoinSet::new();
        while let Some(admitted) = admitted.recv().await {
            while connections.try_join_next().is_some() {}
            let peers = self.clone();
            connections.spawn(async move {
                let (shared, from) = (peers.shared.clone(), admitted.caller.hello.from);
                let serving = tasks::guarded(&shared, "a peer's connection", peers.serve(admitted));
                if let Err(error) = serving.await {
                    tracing::debug!(from, %error, "peer connection ended");
                }
            });
        }
    }

    async fn serve(self: Arc<Self>, admitted: Admitted) -> io::Result<()> {
        let Admitted { caller: Caller { hello, credentials, .. }, reader, writer, ticket } = admitted;
        self.founding.note_caller(hello.from, &credentials.address);
        let watched = watchdog::watch(reader.progress(), writer.progress());
        let (place, ended) = (ticket.ended(), self.ended.clone());
        let peer = Peer { id: hello.from, group_id: credentials.group_id };
        let serving = async {
            match hello.purpose {
                Purpose::Replication => self.serve_replication(peer, reader, writer).await,
                Purpose::Requests => self.clone().serve_requests(peer, reader, writer).await,
            }
        };
        let served = tokio::select! {
            served = serving => served,
            // What this node closes is no sign of the peer's death.
            stuck = watched => return Err(stuck),
            () = place => return Err(io::Error::other("peer.I8: its place was given to another connection")),
        };
        let _ = ended.try_send(hello.from);
        served
    }

    /// Whether a caller is a member, or was one at the group's birth.
    pub(crate) fn is_known(&self, id: u64) -> bool {
        self.is_member(id) || self.born.contains(&id)
    }

    /// `peer.I1`, `group_id.I2`
    pub(crate) fn check(&self, caller: &Caller) -> Result<(), Mismatch> {
        self.check_names(caller)?;
        match (self.founding.group_id.get(), caller.credentials.group_id) {
            (Some(own), Some(other)) if own != other => {
                let told = other_group(own, other);
                let is_news = self.shared.status_messages.refused(caller.hello.from, other, &told);
                Err(Mismatch::GroupId { told, is_news })
            }
            _ => Ok(()),
        }
    }

    fn check_names(&self, caller: &Caller) -> Result<(), Mismatch> {
        let (own, Caller { hello, credentials: said, .. }) = (&self.identity, caller);
        if (&said.cluster, &said.group) != (&own.cluster, &own.group) {
            let here = (own.group.clone(), own.cluster.clone());
            return Err(Mismatch::Names { here, wanted: (said.group.clone(), said.cluster.clone()) });
        }
        if hello.to != own.node_id {
            return Err(Mismatch::Node { here: own.node_id, wanted: hello.to });
        }
        if hello.from == own.node_id {
            return Err(Mismatch::SameId(own.node_id));
        }
        if said.segment_bytes != own.segment_bytes {
            return Err(Mismatch::SegmentBytes { here: own.segment_bytes, there: said.segment_bytes });
        }
        check_levels(own.level.get(), (said.supports, said.uses))?;
        if said.address.len() > ADDRESS_BYTES_MAX {
            return Err(Mismatch::Address(said.address.len()));
        }
        Ok(())
    }
}

/// `features.I2`: each side's build supports what the other one's group uses.
fn check_levels(uses: u16, (peer_supports, peer_uses): (u16, u16)) -> Result<(), Mismatch> {
    if peer_supports < uses {
        return Err(Mismatch::PeerTooOld { uses, supports: peer_supports });
    }
    if peer_uses > FEATURE_LEVEL {
        return Err(Mismatch::TooOldHere { uses: peer_uses });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_i2_a_peer_whose_build_is_too_old_or_too_new_is_told_what_to_install() {
        check_levels(1, (1, 1)).unwrap();
        check_levels(1, (9, 1)).expect("a rolling upgrade");
        let old = check_levels(2, (1, 1)).unwrap_err().to_string();
        assert!(old.contains("supports levels up to 1: install the build of the other nodes there"), "{old}");
        let new = check_levels(1, (FEATURE_LEVEL + 1, FEATURE_LEVEL + 1)).unwrap_err().to_string();
        assert!(new.contains("install the build of the other nodes here"), "{new}");
    }
}
