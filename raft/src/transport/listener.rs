//! The Raft port: accepts callers, lets peers in, and turns everybody else away.
//!
//! - `peer.I1`: a connection speaks only after a handshake ([`super::handshake`]) for this cluster, group, node and segment size;
//!   and a peer that has not named this group's id (`group::group_id`) is told what this node is and nothing else.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use folio_state::FEATURE_LEVEL;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::admission::Ticket;
use super::frames::{FrameReader, FrameWriter};
use super::handshake::{self, Caller, HANDSHAKE_TIMEOUT, NotMet};
use super::peer::{Peer, Peers};
use super::watchdog;
use super::wire::{Kind, Purpose};
use crate::group::group_id::other_group;
use crate::group::tasks;
use crate::host::{Listener, Socket};
use crate::log_rate_limiter::LogRateLimiter;

/// A peer's `host:port`: the longest name that DNS knows, and a port.
const ADDRESS_BYTES_MAX: usize = 253 + 6;
/// Pause after a connection could not be accepted: there may be no descriptor for it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a caller that has proved itself is not let in.
#[derive(Debug, thiserror::Error)]
enum Mismatch {
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
    fn is_news(&self) -> bool {
        !matches!(self, Mismatch::GroupId { is_news: false, .. })
    }
}

impl Peers {
    /// Accepts peers until the listener's task is aborted, and ends their connections then: a peer would go on asking a group
    /// that has stopped.
    pub(crate) async fn listen(self: Arc<Self>, mut listener: Box<dyn Listener>) {
        let (mut connections, failures) = (JoinSet::new(), LogRateLimiter::default());
        loop {
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok(socket) => {
                    let (peers, from) = (self.clone(), socket.peer.clone());
                    let ticket = self.admission.arrive(&from);
                    connections.spawn(async move {
                        let shared = peers.shared.clone();
                        let served =
                            tasks::guarded(&shared, "a peer's connection", peers.serve(socket, ticket));
                        if let Err(error) = served.await {
                            tracing::debug!(%from, %error, "peer connection ended");
                        }
                    });
                }
                Err(error) => {
                    if failures.admit().is_some() {
                        tracing::warn!(%error, "cannot accept a peer's connection");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve(self: Arc<Self>, socket: Socket, mut ticket: Ticket) -> io::Result<()> {
        let from = socket.peer;
        let (mut reader, mut writer) =
            (FrameReader::of_stranger(socket.reader), FrameWriter::new(socket.writer));
        let meeting = timeout(HANDSHAKE_TIMEOUT, self.welcome(&from, &mut reader, &mut writer));
        let met = tokio::select! {
            met = meeting => met.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            () = ticket.ended() => Err(io::Error::other("peer.I8: its place was given to another connection")),
        };
        let Caller { hello, credentials } = match met {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                self.note_refusal(&from, "it did not finish its handshake in time");
                return Err(error);
            }
            met => met?,
        };
        ticket.admit(hello.from, self.is_member(hello.from) || self.born.contains(&hello.from));
        reader.trust(Some(self.arriving.clone()));
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

    /// The handshake, up to the answer that ends it.
    async fn welcome(
        &self,
        from: &str,
        reader: &mut FrameReader,
        writer: &mut FrameWriter,
    ) -> io::Result<Caller> {
        let caller = match handshake::meet(reader, writer, &self.identity).await {
            Ok(caller) => caller,
            Err(NotMet::Left) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(NotMet::Refused { told, why }) => {
                self.note_refusal(from, &why);
                if let Some(told) = told {
                    writer.write(Kind::Failure, 0, vec![told.into()]).await?;
                }
                return Err(io::Error::other(why));
            }
        };
        if let Err(reason) = self.check(&caller) {
            if reason.is_news() {
                self.note_refusal(from, &format!("it says that it is node {}: {reason}", caller.hello.from));
            }
            // peer.I7
            let told = if self.identity.secret.is_some() {
                reason.to_string()
            } else {
                handshake::REFUSED.to_owned()
            };
            writer.write(Kind::Failure, 0, vec![told.into()]).await?;
            return Err(io::Error::other(reason));
        }
        writer.write(Kind::Answer, 0, Vec::new()).await?;
        Ok(caller)
    }

    fn note_refusal(&self, from: &str, why: &str) {
        if self.refusals.admit().is_some() {
            tracing::warn!(%from, why, "a caller was turned away from the Raft port");
        }
    }

    /// `peer.I1`, `group_id.I2`
    fn check(&self, caller: &Caller) -> Result<(), Mismatch> {
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
        let (own, Caller { hello, credentials: said }) = (&self.identity, caller);
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
