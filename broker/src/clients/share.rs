//! What a node tells its peers of its part of the client table, and what a peer makes of it.
//!
//! A peer is told in passes. A pass begins with nothing and lists every registration in the order of its last change; once
//! it is complete it goes on with each change for as long as the peer acknowledges them. A part of a pass holds the
//! changes after one revision up to another one. A new pass begins when the peer does not know the one before (it has
//! started again), or lacks the end of a registration that is listed no more and that the pass may have named.
//!
//! JSON, as it changes more often than its format may: unknown fields are ignored. The answer to a part:
//!
//! | bytes | what the peer has heard, little-endian |
//! |---|---|
//! | 8 | of which process; 0 of none |
//! | 8 | which pass |
//! | 8 | up to which revision |
//!
//! - `share.I1`: a change costs what changed: a peer is told what it has not acknowledged, in parts of at most
//!   [`PART_BYTES_MAX`], or one registration that is larger.
//! - `share.I2`: a peer's list loses a registration only because it ended, with its process, or by the node's silence: a
//!   pass that begins anew takes nothing away before it is complete, and then what it did not name.
//! - `clients.I3`: what a peer has heard never goes back to something older: a part of an earlier pass, or one that ends
//!   before what was heard of its own pass, is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::feed::{Change, Said};
use super::{Consumer, Producer};

/// Registrations in one part: far below what one frame between nodes holds.
pub(super) const PART_BYTES_MAX: usize = 1 << 20;
/// Bytes of an answer.
const HEARD_BYTES: usize = 24;

/// A part of a pass.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Part<C, P> {
    /// The process that tells it: a node that starts again counts from the beginning.
    pub(super) process: u64,
    pub(super) pass: u64,
    /// The changes after this revision.
    pub(super) base: u64,
    /// All of them up to this one.
    pub(super) upto: u64,
    /// There are none after it.
    pub(super) complete: bool,
    /// Where clients reach the node now; the founding membership may not know or be out of date.
    pub(super) addresses: Addresses,
    pub(super) consumers: Vec<Told<C>>,
    pub(super) producers: Vec<Told<P>>,
    /// Registrations that ended.
    pub(super) gone: Vec<u64>,
}

/// A registration.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Told<T> {
    /// Its name among those of its node.
    pub(super) id: u64,
    pub(super) what: T,
}

/// Where clients reach a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Addresses {
    /// Broker port, `host:port`.
    pub broker: String,
    /// NameServer port, `host:port`.
    pub namesrv: String,
}

/// What a peer has heard of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(super) process: u64,
    pub(super) pass: u64,
    pub(super) revision: u64,
    /// The node's revision when it began the pass, which the peer is not told: what had ended by then the pass never named.
    pub(super) begun: u64,
}

impl Progress {
    /// Up to which change.
    pub(crate) fn revision(self) -> u64 {
        self.revision
    }

    pub(super) fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEARD_BYTES);
        out.put_u64_le(self.process);
        out.put_u64_le(self.pass);
        out.put_u64_le(self.revision);
        out.freeze()
    }

    fn decode(mut bytes: &[u8]) -> Option<Progress> {
        if bytes.len() != HEARD_BYTES {
            return None;
        }
        let mut next = || bytes.get_u64_le();
        Some(Progress { process: next(), pass: next(), revision: next(), begun: 0 })
    }
}

/// A part that is about to be told.
pub(crate) struct Outgoing {
    /// As it is sent.
    pub bytes: Bytes,
    /// What the peer will have heard then.
    pub then: Progress,
    /// Whether that is everything.
    pub complete: bool,
}

impl Outgoing {
    /// The part that follows `base` and holds these changes.
    pub(super) fn new(
        then: Progress,
        base: u64,
        complete: bool,
        addresses: Addresses,
        changes: &[(u64, Change)],
    ) -> Outgoing {
        let Progress { process, pass, revision: upto, .. } = then;
        let (consumers, producers, gone) = Default::default();
        let mut part: Part<&Consumer, &Producer> =
            Part { process, pass, base, upto, complete, addresses, consumers, producers, gone };
        for (_, Change { id, said, .. }) in changes {
            match said {
                Said::Consumer(what) => part.consumers.push(Told { id: *id, what: what.as_ref() }),
                Said::Producer(what) => part.producers.push(Told { id: *id, what: what.as_ref() }),
                Said::Gone => part.gone.push(*id),
            }
        }
        let bytes = serde_json::to_vec(&part).unwrap_or_else(|error| {
            tracing::error!("the client table does not encode: {error}");
            Vec::new()
        });
        Outgoing { bytes: bytes.into(), then, complete }
    }

    /// Whether the peer's answer says that it has heard this part.
    pub(crate) fn is_heard(&self, answer: &[u8]) -> bool {
        let heard = Progress::decode(answer);
        heard.is_some_and(|heard| {
            (heard.process, heard.pass) == (self.then.process, self.then.pass)
                && heard.revision >= self.then.revision
        })
    }
}

/// What was heard of a peer.
pub(super) struct Heard {
    pub(super) progress: Progress,
    pub(super) addresses: Addresses,
    pub(super) consumers: BTreeMap<u64, Arc<Consumer>>,
    pub(super) producers: BTreeMap<u64, Arc<Producer>>,
    /// Registrations that the pass has not named yet, until it is complete.
    unseen: BTreeSet<u64>,
    pub(super) at: Instant,
    /// The addresses of a silent node stay known, its clients do not.
    pub(super) expired: bool,
}

/// The consumers that a part adds, changes (as they were and as they are) and takes away.
#[derive(Default)]
pub(super) struct News {
    pub(super) left: Vec<(u64, Arc<Consumer>)>,
    pub(super) came: Vec<(u64, Arc<Consumer>)>,
}

impl Heard {
    /// Nothing yet.
    pub(super) fn new() -> Heard {
        Heard {
            progress: Progress::default(),
            addresses: Addresses::default(),
            consumers: BTreeMap::new(),
            producers: BTreeMap::new(),
            unseen: BTreeSet::new(),
            at: Instant::now(),
            expired: false,
        }
    }

    /// Whether something was heard at all.
    pub(super) fn has_begun(&self) -> bool {
        self.progress != Progress::default()
    }

    /// `clients.I3`
    fn is_followed_by(&self, part: &Part<Consumer, Producer>) -> bool {
        let Progress { process, pass, revision, .. } = self.progress;
        if part.process != process || part.pass > pass {
            return part.base == 0;
        }
        part.pass == pass && (part.base..=part.upto).contains(&revision)
    }

    /// Takes a part over, if it follows what was heard.
    pub(super) fn take(&mut self, part: Part<Consumer, Producer>) -> News {
        let mut news = News::default();
        self.at = Instant::now();
        if !self.is_followed_by(&part) {
            return news;
        }
        if part.process != self.progress.process {
            // The clients of an earlier process have lost their connections.
            news.left.extend(std::mem::take(&mut self.consumers));
            *self = Heard { expired: self.expired, ..Heard::new() };
        }
        if part.pass != self.progress.pass {
            self.unseen = self.consumers.keys().chain(self.producers.keys()).copied().collect();
        }
        self.progress = Progress { process: part.process, pass: part.pass, revision: part.upto, begun: 0 };
        self.addresses = part.addresses;
        for Told { id, what } in part.consumers {
            self.unseen.remove(&id);
            if self.consumers.get(&id).is_none_or(|known| **known != what) {
                let what = Arc::new(what);
                news.left.extend(self.consumers.insert(id, what.clone()).map(|known| (id, known)));
                news.came.push((id, what));
            }
        }
        for Told { id, what } in part.producers {
            self.unseen.remove(&id);
            self.producers.insert(id, Arc::new(what));
        }
        let unnamed = if part.complete { std::mem::take(&mut self.unseen) } else { BTreeSet::new() };
        for id in part.gone.into_iter().chain(unnamed) {
            self.unseen.remove(&id);
            self.producers.remove(&id);
            news.left.extend(self.consumers.remove(&id).map(|known| (id, known)));
        }
        news
    }
}
