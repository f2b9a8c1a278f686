//! The changes of this node's registrations in their order, for peers that have heard some of them.
//!
//! Each change has a revision, and each registration is listed once, under the revision of its last change: all that a peer
//! lacks that has heard everything up to a revision is what is listed behind it. A registration that ended is listed, too,
//! as long as there are no more than [`GONE_MAX`] of those. A peer that lacks one which is listed no more is told
//! everything in a new pass (see [`super::share`]).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::{Consumer, Producer};

/// Ended registrations that are listed: more than leave while a peer does not answer.
const GONE_MAX: usize = 16_384;

/// A registration's name among those of its node, and its last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) id: u64,
    pub(super) revision: u64,
}

/// What a registration says now.
#[derive(Debug, Clone)]
pub(super) enum Said {
    Consumer(Arc<Consumer>),
    Producer(Arc<Producer>),
    /// It has ended.
    Gone,
}

/// The last change of one registration.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) id: u64,
    pub(super) said: Said,
    bytes: usize,
}

/// See the module.
#[derive(Default)]
pub(super) struct Feed {
    revision: u64,
    next_id: u64,
    changes: BTreeMap<u64, Change>,
    /// Revisions of the ended registrations that are listed.
    gone: VecDeque<u64>,
    /// The last revision of those that are listed no more.
    forgotten: u64,
    /// Of the registrations that have not ended, as they are told.
    bytes: usize,
}

impl Feed {
    /// The last change.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// A peer that has not heard of everything up to here cannot be told what it lacks.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// What all registrations have, as they are told.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A registration is new, or says something else than it did under its number before.
    pub(super) fn tell(&mut self, before: Option<Number>, said: Said, bytes: usize) -> Number {
        let id = match before {
            Some(number) => {
                self.unlist(number);
                number.id
            }
            None => {
                self.next_id += 1;
                self.next_id
            }
        };
        self.bytes += bytes;
        Number { id, revision: self.list(Change { id, said, bytes }) }
    }

    /// A registration has ended.
    pub(super) fn end(&mut self, number: Number) {
        self.unlist(number);
        let revision = self.list(Change { id: number.id, said: Said::Gone, bytes: 0 });
        self.gone.push_back(revision);
        if self.gone.len() > GONE_MAX
            && let Some(oldest) = self.gone.pop_front()
        {
            self.changes.remove(&oldest);
            self.forgotten = oldest;
        }
    }

    /// The changes after a revision, in their order, of at most so many bytes, or one larger one; up to which revision they
    /// are all.
    pub(super) fn after(&self, base: u64, bytes_max: usize) -> (Vec<(u64, Change)>, u64) {
        let (mut changes, mut bytes) = (Vec::new(), 0);
        for (revision, change) in self.changes.range(base.saturating_add(1)..) {
            bytes += change.bytes + ENTRY_BYTES;
            if bytes > bytes_max
                && let Some((last, _)) = changes.last()
            {
                let upto = *last;
                return (changes, upto);
            }
            changes.push((*revision, change.clone()));
        }
        (changes, self.revision)
    }

    fn list(&mut self, change: Change) -> u64 {
        self.revision += 1;
        self.changes.insert(self.revision, change);
        self.revision
    }

    fn unlist(&mut self, number: Number) {
        if let Some(before) = self.changes.remove(&number.revision) {
            self.bytes -= before.bytes;
        }
    }
}

/// Bytes of a change besides what it says, as it is told.
const ENTRY_BYTES: usize = 64;
