//! How a connection between peers begins: each side proves that it has the cluster's secret before it is told anything.
//!
//! ```text
//! caller                                              listener
//!   GroupHello   from, to, purpose, nonce C, group -->
//!                                                <--  Challenge    nonce L, proof("listener")
//!   Credentials  proof("caller"), who I am       -->
//!                                                <--  Answer, or Failure with a reason
//! ```
//!
//! The hello names the group, since a node has one listener for all its groups. A listener of an earlier build closes the
//! connection on it: then the caller says the same once more without the name (`Hello`), as earlier builds do. What the name
//! says is proved with the rest: a group that the listener does not host is refused by name, after the proofs.
//!
//! A proof ([`ClusterSecret`]) covers both nonces, both ids, cluster, group and purpose; the caller's also what it says of
//! itself. Nonces are random and of one connection: what was recorded on another one proves nothing. The two directions are
//! two domains: a proof cannot be sent back to its maker. A listener without the secret learns two ids and the name of the group; a caller without it
//! learns that a secret is asked for. Everything else is parsed after its sender's proof.
//!
//! Without a secret the same frames are exchanged, with proofs that nobody looks at. Then a peer is whoever it says it is, and
//! anybody who reaches the port can stop the group: [`warn_if_open`].
//!
//! The secret says that a peer is *some* node of the cluster. It encrypts nothing: who can change packets on their way can
//! still put words into a connection that has begun. TLS belongs below this, in a [`Net`](crate::host::Net) that wraps
//! sockets; nothing here would change.
//!
//! - `peer.I7`: with a secret, nothing of a caller is parsed beyond its hello before its proof, and it is told nothing but one
//!   bare sentence; what is wrong is in this node's own log, at most once a second.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use folio_protocol::limits::GROUP_BYTES_MAX;

use super::frames::{FrameReader, FrameWriter};
use super::introduction::{Introduction, NodeIdentity};
use super::wire::{Challenge, Credentials, Frame, GroupHello, Hello, Kind, Nonce, Purpose, invalid};
use crate::codec;
use crate::secret::{ClusterSecret, Proof, random};

/// How long a caller may take for its hello and its credentials together.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);

const LISTENER: &str = "folio peers 1: listener";
const CALLER: &str = "folio peers 1: caller";
/// What stands where a proof would.
const NO_PROOF: Proof = [0; 32];

/// All that a caller is told before it has proved itself.
pub(crate) const REFUSED: &str = "refused; the log of the node that refuses says why";
/// It has proved itself.
const OTHER_BUILD: &str = "refused: another build, whose peers this one does not understand. Stop all nodes and start them with one build";
const SECRET_MISSING: &str = "refused: the caller has no cluster secret";
const SECRET_UNASKED: &str = "refused: no cluster secret here";
/// Bytes of an unknown listener's reason that are repeated.
const REASON_BYTES_MAX: usize = 128;

/// Says at the start that peers are not asked for a proof, where others than this machine can reach the port.
pub(crate) fn warn_if_open(has_secret: bool, listen: SocketAddr) {
    if is_open(has_secret, listen) {
        tracing::warn!(
            %listen,
            "no cluster secret: anybody who reaches this port can stop the cluster. Set `secret_file` on every node, to a file \
             with the same secret"
        );
    }
}

fn is_open(has_secret: bool, listen: SocketAddr) -> bool {
    !has_secret && !listen.ip().is_loopback()
}

/// What both sides of one connection know of it.
struct Transcript<'a> {
    secret: Option<&'a ClusterSecret>,
    cluster: &'a str,
    group: &'a str,
    hello: &'a Hello,
    listener: Nonce,
}

impl Transcript<'_> {
    fn with_parts<T>(&self, said: &[u8], then: impl FnOnce(&[&[u8]]) -> T) -> T {
        let Transcript { cluster, group, hello, listener, .. } = self;
        let purpose = match hello.purpose {
            Purpose::Replication => b"replication".as_slice(),
            Purpose::Requests => b"requests",
        };
        then(&[
            &hello.nonce,
            listener,
            &hello.from.to_le_bytes(),
            &hello.to.to_le_bytes(),
            cluster.as_bytes(),
            group.as_bytes(),
            purpose,
            said,
        ])
    }

    fn prove(&self, domain: &str, said: &[u8]) -> Proof {
        let Some(secret) = self.secret else { return NO_PROOF };
        self.with_parts(said, |parts| secret.prove(domain, parts))
    }

    /// Whether the other side has proved itself, where that is asked for.
    fn is_proved(&self, domain: &str, said: &[u8], proof: &[u8]) -> bool {
        let Some(secret) = self.secret else { return true };
        self.with_parts(said, |parts| secret.is_proof(domain, parts, proof))
    }
}

/// How a caller's hello says which group it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    Named,
    /// Not at all: builds whose nodes host one group.
    Unnamed,
}

/// What became of a caller's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Introduced {
    Done,
    /// The listener closed instead of an answer to the hello, as a build does that does not know its kind.
    Closed,
}

/// The caller's side. A refusal is an error of the kind `ConnectionRefused` with its reason.
pub(crate) async fn introduce(
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    introduction: &Introduction,
    naming: Naming,
) -> io::Result<Introduced> {
    let identity = introduction.identity();
    let hello = introduction.hello(random()?);
    let group = identity.group.clone();
    let (kind, said) = match naming {
        Naming::Named => (Kind::GroupHello, codec::encode(&GroupHello { hello: hello.clone(), group })),
        Naming::Unnamed => (Kind::Hello, codec::encode(&hello)),
    };
    writer.write(kind, 0, vec![said.into()]).await?;
    let frame = match reader.next().await {
        Ok(Some(frame)) => frame,
        Ok(None) => return Ok(Introduced::Closed),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(Introduced::Closed),
        Err(error) => return Err(error),
    };
    let challenge: Challenge = match frame.kind {
        Kind::Challenge => codec::decode(&frame.body).map_err(|error| invalid(error.to_string()))?,
        Kind::Failure => return Err(refused_by_stranger(&frame.body)),
        kind => return Err(invalid(format!("a {kind:?} frame instead of the answer to a hello"))),
    };
    let transcript = Transcript {
        secret: identity.secret.as_ref(),
        cluster: &identity.cluster,
        group: &identity.group,
        hello: &hello,
        listener: challenge.nonce,
    };
    if !transcript.is_proved(LISTENER, &[], &challenge.proof) {
        return Err(refused(
            "it does not prove that it has this cluster's secret: its `secret_file` holds another secret, its configuration \
             has another cluster, or another program listens there",
        ));
    }
    let said: Bytes = codec::encode(&introduction.credentials()).into();
    let proof = Bytes::copy_from_slice(&transcript.prove(CALLER, &said));
    writer.write(Kind::Credentials, 0, vec![proof, said]).await?;
    match reader.next().await?.ok_or(io::ErrorKind::ConnectionReset)? {
        Frame { kind: Kind::Answer, .. } => Ok(Introduced::Done),
        Frame { kind: Kind::Failure, body, .. } => Err(refused(&String::from_utf8_lossy(&body))),
        frame => Err(invalid(format!("a {:?} frame instead of the answer to credentials", frame.kind))),
    }
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, why.to_owned())
}

/// What a listener says that has proved nothing.
fn refused_by_stranger(said: &[u8]) -> io::Error {
    match std::str::from_utf8(said) {
        Ok(SECRET_MISSING) => refused(
            "it asks for a cluster secret, and this node has none: set `secret_file` in its configuration",
        ),
        Ok(SECRET_UNASKED) => refused(
            "it has no cluster secret, and this node has one: set `secret_file` in the configuration of that node",
        ),
        _ => {
            let said = String::from_utf8_lossy(&said[..said.len().min(REASON_BYTES_MAX)]);
            refused(&format!("it says {said:?}"))
        }
    }
}

/// A caller that has proved itself, where that is asked for.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) hello: Hello,
    /// The group that it looks for.
    pub(crate) group: Arc<str>,
    pub(crate) credentials: Credentials,
}

/// Why there is no caller.
#[derive(Debug)]
pub(crate) enum NotMet {
    /// It closed before it said anything: somebody looked whether the port is open.
    Left,
    /// It is told the sentence, if there is one; the log says why.
    Refused { told: Option<&'static str>, why: String },
}

impl NotMet {
    fn silently(why: impl Into<String>) -> NotMet {
        NotMet::Refused { told: None, why: why.into() }
    }
}

impl From<io::Error> for NotMet {
    fn from(error: io::Error) -> NotMet {
        NotMet::silently(error.to_string())
    }
}

/// The listener's side, up to the caller's proof (`peer.I7`). The caller waits for an answer then.
pub(crate) async fn meet(
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    identity: &NodeIdentity,
) -> Result<Caller, NotMet> {
    let Some(frame) = reader.next().await? else { return Err(NotMet::Left) };
    let Some((hello, group)) = hello_of(&frame, identity) else {
        return Err(NotMet::silently("it does not begin with a hello of this version"));
    };
    check_secrets(identity, &hello)?;
    let mut challenge = Challenge { nonce: random()?, proof: NO_PROOF };
    let transcript = Transcript {
        secret: identity.secret.as_ref(),
        cluster: &identity.cluster,
        group: &group,
        hello: &hello,
        listener: challenge.nonce,
    };
    challenge.proof = transcript.prove(LISTENER, &[]);
    writer.write(Kind::Challenge, 0, vec![codec::encode(&challenge).into()]).await?;
    let Some(frame) = reader.next().await? else {
        return Err(NotMet::silently(format!(
            "it says that it is node {} and left when it was asked for a proof: its secret, cluster or group may differ, or it \
             had waited too long",
            hello.from
        )));
    };
    let unproved = || NotMet::Refused {
        told: Some(REFUSED),
        why: format!(
            "it says that it is node {} and does not prove that it has this cluster's secret",
            hello.from
        ),
    };
    if frame.kind != Kind::Credentials {
        return Err(unproved());
    }
    let (proof, said) = frame.body.split_at_checked(NO_PROOF.len()).ok_or_else(unproved)?;
    if !transcript.is_proved(CALLER, said, proof) {
        return Err(unproved());
    }
    let credentials = codec::decode(said).map_err(|error| NotMet::Refused {
        told: Some(OTHER_BUILD),
        why: format!(
            "it says that it is node {}, and its credentials are another build's ({error})",
            hello.from
        ),
    })?;
    Ok(Caller { hello, group, credentials })
}

/// A caller's hello, and the group that it looks for: without a name the node's first one.
fn hello_of(frame: &Frame, identity: &NodeIdentity) -> Option<(Hello, Arc<str>)> {
    match frame.kind {
        Kind::GroupHello => {
            let GroupHello { hello, group } = codec::decode(&frame.body).ok()?;
            (group.len() <= GROUP_BYTES_MAX).then(|| (hello, group.into()))
        }
        Kind::Hello => Some((codec::decode(&frame.body).ok()?, identity.groups.first()?.as_str().into())),
        _ => None,
    }
}

/// Both sides have a secret, or neither has one. An operator has to see in both logs where it is missing.
fn check_secrets(identity: &NodeIdentity, hello: &Hello) -> Result<(), NotMet> {
    let (told, why) = match (identity.secret.is_some(), hello.has_secret) {
        (true, false) => (SECRET_MISSING, "has no cluster secret: set `secret_file` in its configuration"),
        (false, true) => (
            SECRET_UNASKED,
            "has a cluster secret, and this node has none: set `secret_file` in this node's configuration",
        ),
        _ => return Ok(()),
    };
    Err(NotMet::Refused {
        told: Some(told),
        why: format!("it says that it is node {} and {why}", hello.from),
    })
}

#[cfg(test)]
mod tests;
