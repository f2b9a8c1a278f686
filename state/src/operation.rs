//! What one kind of command is: how it is written, and what it does. The list of all kinds is [`crate::registry`]'s.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bounds::OutOfBounds;
use crate::codec::{self, CodecError, envelope};
use crate::queue_ref::QueueRef;
use crate::section::{FIRST_LEVEL, NextOffsets};

/// The version in the envelope of a command.
pub(crate) const FORMAT: u8 = 2;

/// What applying a command answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// The queues that the client holds now, of those it asked for.
    Locked(Vec<QueueRef>),
    /// The named thing does not exist; nothing was changed.
    NotFound,
    /// A thing of that name exists already; nothing was changed.
    Exists,
}

/// A precondition that does not hold; what was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unmet(pub String);

/// One kind of command, as it is written. Defined beside the section that it changes.
///
/// The encoding is bincode's. A version is for ever, as with [`crate::section::Section`].
pub trait Operation: Serialize + DeserializeOwned {
    /// The command's number in the log. Never given to another command.
    const KIND: u16;
    /// The version that this build writes.
    const VERSION: u16 = 1;
    /// The group's feature level from which on it is proposed (`features.I1`).
    const SINCE: u16 = FIRST_LEVEL;
    /// Whether it changes nothing but sections that depend on order ([`crate::section::Section::DEPENDS_ON_ORDER`]).
    const DEPENDS_ON_ORDER: bool = false;
    /// Whether it carries a reading of the lease clock.
    const IS_STAMPED: bool = false;

    /// Refuses a longer name or id, or more entries, than any client needs (`bounds.I1`).
    fn check_bounds(&self) -> Result<(), OutOfBounds>;

    /// The topic whose messages it may delete.
    fn deletes_in(&self) -> Option<String> {
        None
    }

    /// The command as `version` wrote it.
    fn decode(version: u16, bytes: &[u8]) -> Result<Self, CodecError> {
        if version != Self::VERSION {
            return Err(CodecError::Newer { what: "command", number: Self::KIND, version });
        }
        codec::decode_body(bytes)
    }
}

/// What a command does to a state that has the sections it needs: the bounds of `S` name them.
pub trait Apply<S>: Operation {
    /// By how many bytes the encoded state grows if the command is applied now; below zero if it shrinks.
    fn growth(&self, state: &S, queues: &dyn NextOffsets) -> i64;

    /// What must hold where it is applied as part of a transition, which its driver has seen to. Where it does not hold, the
    /// command is applied all the same: the messages of the transition are in their queues already.
    fn precondition(&self, _: &S) -> Result<(), Unmet> {
        Ok(())
    }

    /// Changes the state. `queues` is as of the record before the command.
    fn apply(self, state: &mut S, queues: &dyn NextOffsets) -> Outcome;
}

/// A command as a record's payload.
pub(crate) fn encode<O: Operation>(operation: &O) -> Vec<u8> {
    let mut out = envelope(FORMAT).to_vec();
    out.extend(O::KIND.to_le_bytes());
    out.extend(O::VERSION.to_le_bytes());
    out.extend([0; 4]);
    let body_at = out.len();
    // Writing to a vector cannot fail, and no command is as large as a checkpoint.
    let written = codec::encode_body(operation, &mut out);
    written.unwrap_or_else(|error| panic!("codec.I1: command {} does not encode: {error}", O::KIND));
    let length =
        u32::try_from(out.len() - body_at).unwrap_or_else(|_| panic!("codec.I1: a command of 4 GiB"));
    out[body_at - 4..body_at].copy_from_slice(&length.to_le_bytes());
    out
}
