//! How the payload of a transition is laid out: commands and messages in one record, so that both happen or neither does.
//!
//! It is not a change of state: what a command is and does is opaque here. It is not a batch either: its messages are stamped,
//! indexed and read as those of a record of messages ([`crate::record`]).
//!
//! Integers are little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 2 | version of this layout, 1 |
//! | 2 | 2 | number of commands, 1 to [`COMMANDS_MAX`] |
//! | 4 | 4 | bytes of the commands with their lengths, at most [`COMMANDS_BYTES_MAX`] |
//! | 8 | | for each command: its length (4 bytes), and its bytes |
//! | | | messages in the store encoding, back to back, up to the payload's end; there may be none |
//!
//! Invariants
//! - `transition.I1` A record whose layout is broken or beyond these bounds is none: it is neither sealed nor parsed, and so
//!   enters no log.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Commands in one transition.
pub const COMMANDS_MAX: usize = 4096;
/// Bytes of the commands of one transition, their lengths included.
pub const COMMANDS_BYTES_MAX: usize = 1 << 20;

/// Bytes before the first command.
pub const HEAD_BYTES: usize = 8;
/// Bytes before each command.
pub const LENGTH_BYTES: usize = 4;

const VERSION: u16 = 1;

/// Why bytes are not the payload of a transition, or cannot become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TransitionError {
    /// It ends before its messages begin.
    #[error("the commands do not end where the transition says")]
    Short,
    /// Written by a build that this one does not know.
    #[error("a transition in version {0}, which this program does not know")]
    Version(u16),
    /// No command, or more than [`COMMANDS_MAX`].
    #[error("{0} commands, at least 1 and at most {COMMANDS_MAX}")]
    Count(usize),
    /// More than [`COMMANDS_BYTES_MAX`].
    #[error("{0} bytes of commands, the limit is {COMMANDS_BYTES_MAX}")]
    Bytes(usize),
}

/// Appends the part before the messages.
pub(crate) fn put(commands: &[Vec<u8>], out: &mut BytesMut) -> Result<(), TransitionError> {
    let bytes = commands.iter().map(|command| LENGTH_BYTES + command.len()).sum();
    check(commands.len(), bytes)?;
    out.put_u16_le(VERSION);
    out.put_u16_le(commands.len() as u16);
    out.put_u32_le(bytes as u32);
    for command in commands {
        out.put_u32_le(command.len() as u32);
        out.put_slice(command);
    }
    Ok(())
}

fn check(count: usize, bytes: usize) -> Result<(), TransitionError> {
    match (count, bytes) {
        (0, _) => Err(TransitionError::Count(0)),
        (COMMANDS_MAX.., _) if count > COMMANDS_MAX => Err(TransitionError::Count(count)),
        (_, COMMANDS_BYTES_MAX..) if bytes > COMMANDS_BYTES_MAX => Err(TransitionError::Bytes(bytes)),
        _ => Ok(()),
    }
}

/// Where in the payload the messages begin, once all commands before them were found whole (`transition.I1`).
pub(crate) fn messages_at(payload: &[u8]) -> Result<usize, TransitionError> {
    let head: &[u8; HEAD_BYTES] = payload.first_chunk().ok_or(TransitionError::Short)?;
    let [v0, v1, c0, c1, length @ ..] = *head;
    let version = u16::from_le_bytes([v0, v1]);
    if version != VERSION {
        return Err(TransitionError::Version(version));
    }
    let (count, bytes) = (u16::from_le_bytes([c0, c1]) as usize, u32::from_le_bytes(length) as usize);
    check(count, bytes)?;
    let end = HEAD_BYTES + bytes;
    let mut rest = payload.get(HEAD_BYTES..end).ok_or(TransitionError::Short)?;
    for _ in 0..count {
        let (_, behind) = split(rest).ok_or(TransitionError::Short)?;
        rest = behind;
    }
    if rest.is_empty() { Ok(end) } else { Err(TransitionError::Short) }
}

/// The first command, and what follows it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

/// The commands of a whole transition, in order.
#[derive(Debug, Clone)]
pub struct Commands {
    frame: Bytes,
    rest: Range<usize>,
}

impl Commands {
    /// Of a record whose commands, with their lengths, are there in its frame.
    pub(crate) fn new(frame: Bytes, rest: Range<usize>) -> Commands {
        Commands { frame, rest }
    }
}

impl Iterator for Commands {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let (command, _) = split(self.frame.get(self.rest.clone())?)?;
        let start = self.rest.start + LENGTH_BYTES;
        let end = start + command.len();
        self.rest.start = end;
        Some(self.frame.slice(start..end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_all(commands: &[&[u8]]) -> Result<Vec<u8>, TransitionError> {
        let commands: Vec<Vec<u8>> = commands.iter().map(|command| command.to_vec()).collect();
        let mut out = BytesMut::new();
        put(&commands, &mut out).map(|()| out.to_vec())
    }

    #[test]
    fn golden_bytes_of_a_transition() {
        let payload = [&put_all(&[b"one", b""]).unwrap()[..], b"messages"].concat();
        let golden = b"\x01\0\x02\0\x0b\0\0\0\
            \x03\0\0\0one\
            \0\0\0\0\
            messages";
        assert_eq!(payload, golden);
        assert_eq!(messages_at(&payload), Ok(payload.len() - 8));
        let commands = Commands::new(payload.clone().into(), HEAD_BYTES..payload.len() - 8);
        assert_eq!(commands.collect::<Vec<_>>(), [&b"one"[..], b""]);
    }

    #[test]
    fn transition_i1_what_is_cut_or_beyond_the_bounds_is_no_transition() {
        let whole = put_all(&[b"one", b"two"]).unwrap();
        for cut in 0..whole.len() {
            assert_eq!(messages_at(&whole[..cut]), Err(TransitionError::Short), "cut at {cut}");
        }
        let with = |at: usize, bytes: &[u8]| {
            let mut broken = whole.clone();
            broken[at..at + bytes.len()].copy_from_slice(bytes);
            messages_at(&broken)
        };
        assert_eq!(with(0, &[2, 0]), Err(TransitionError::Version(2)));
        assert_eq!(with(2, &[0, 0]), Err(TransitionError::Count(0)));
        assert_eq!(with(2, &[1, 0]), Err(TransitionError::Short), "more than its commands");
        assert_eq!(with(2, &[0xff, 0xff]), Err(TransitionError::Count(0xffff)));
        assert_eq!(with(4, &[0xff; 4]), Err(TransitionError::Bytes(u32::MAX as usize)));
        assert_eq!(with(HEAD_BYTES, &[0xff; 4]), Err(TransitionError::Short));
        assert_eq!(put_all(&[]), Err(TransitionError::Count(0)));
        assert_eq!(put_all(&[&[][..]; COMMANDS_MAX + 1]), Err(TransitionError::Count(COMMANDS_MAX + 1)));
        let large = vec![0; COMMANDS_BYTES_MAX - LENGTH_BYTES + 1];
        assert_eq!(put_all(&[&large]), Err(TransitionError::Bytes(COMMANDS_BYTES_MAX + 1)));
        put_all(&[&large[1..]]).unwrap();
    }
}
