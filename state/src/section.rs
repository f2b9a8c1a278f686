//! What a section of the state is, and what it may ask of the messages.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{self, CodecError};

/// The feature level that a group begins with: see `sections/features.rs`.
pub const FIRST_LEVEL: u16 = 1;

/// One kind of replicated state. A copy costs little: a checkpoint begins with one (see `cow_map`).
///
/// The encoding is bincode's, unless a section writes its own. A version is for ever: a change of the fields raises
/// [`Section::VERSION`], and [`Section::decode`] goes on reading the versions before.
pub trait Section: Serialize + DeserializeOwned {
    /// The section's number in checkpoints and snapshots. Never given to another section.
    const TAG: u16;
    /// The version that this build writes.
    const VERSION: u16 = 1;
    /// The group's feature level from which on it is written (`features.I1`). Below it the section is as it began.
    const SINCE: u16 = FIRST_LEVEL;
    /// Whether what its commands make of it depends on what it was before, beyond what they say themselves. A snapshot that
    /// was made again from a later state keeps such a section as it was later, and commands up to there leave it alone
    /// (`snapshots.I3`, [`crate::State::apply_again`]). Other sections are changed once more, which leads to the same.
    const DEPENDS_ON_ORDER: bool = false;

    /// Appends the section in [`Section::VERSION`].
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        codec::encode_body(self, out)
    }

    /// Bytes that [`Section::encode`] appends.
    fn encoded_bytes(&self) -> u64 {
        codec::encoded_bytes(self)
    }

    /// The section as `version` wrote it.
    fn decode(version: u16, bytes: &[u8]) -> Result<Self, CodecError> {
        if version != Self::VERSION {
            return Err(CodecError::Newer { what: "section", number: Self::TAG, version });
        }
        codec::decode_body(bytes)
    }

    /// This section of a state.
    fn within<S: Has<Self>>(state: &S) -> &Self {
        state.section()
    }

    /// The same, to change it.
    fn within_mut<S: Has<Self>>(state: &mut S) -> &mut Self {
        state.section_mut()
    }
}

/// A state that has a certain section. A command says with it which sections it reads and changes, and knows of no others;
/// so a section's file needs nothing of the list of all sections.
pub trait Has<T> {
    /// The section.
    fn section(&self) -> &T;

    /// The same, to change it.
    fn section_mut(&mut self) -> &mut T;
}

/// What a state writes at which feature level.
pub trait Levels {
    /// Bytes of the sections, with their headers, that a state of level `to` has and one of level `from` has not
    /// ([`Section::SINCE`]).
    fn bytes_between(&self, from: u16, to: u16) -> u64;
}

/// The next offsets of a topic's queues, as of the record before the one that is applied.
pub trait NextOffsets {
    /// Every queue of the topic that ever had a message, with its next offset.
    fn next_offsets(&self, topic: &str) -> Vec<(u32, u64)>;
}

/// A log without messages.
#[derive(Debug)]
pub struct NoMessages;

impl NextOffsets for NoMessages {
    fn next_offsets(&self, _topic: &str) -> Vec<(u32, u64)> {
        Vec::new()
    }
}
