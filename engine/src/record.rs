//! A log record: one Raft entry as it lies on disk, on the wire between replicas and in memory.
//!
//! It is not the log: where a record goes and what its messages are stamped with is decided by [`crate::log`]. Nothing in
//! it is local to one replica: the bytes are the same everywhere.
//!
//! Header, [`HEADER_BYTES`] bytes, integers little-endian, followed by the payload:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `FoLR` |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | kind: 1 blank, 2 messages, 3 command, 4 membership, 5 transition ([`crate::transition`]) |
//! | 6 | 2 | flags, 0 |
//! | 8 | 4 | length: header and payload |
//! | 12 | 4 | number of messages in the payload |
//! | 16 | 8 | term |
//! | 24 | 8 | index |
//! | 32 | 8 | position of the record's first byte in the log |
//! | 40 | 4 | crc32c of the payload |
//! | 44 | 4 | header crc of the record before this one (0 for the first of a log) |
//! | 48 | 12 | zero |
//! | 60 | 4 | header crc: crc32c of bytes 0 to 59 |
//!
//! Invariants
//! - `record.I1` The header crc covers the payload's crc and the crc of the record before, so equal header crcs at one
//!   position mean equal logs up to there.
//! - `record.I2` A length from outside is checked against [`RECORD_BYTES_MAX`] before anything is read by it.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::transition::{self, Commands, TransitionError};

/// Bytes of a record's header.
pub const HEADER_BYTES: usize = 64;
/// The most one record takes, header included: twice the largest message RocketMQ accepts by default (its
/// `maxMessageSize` is 4 MiB), so that one such message always fits.
pub const RECORD_BYTES_MAX: usize = 8 << 20;

pub(crate) const MAGIC: [u8; 4] = *b"FoLR";
const VERSION: u8 = 1;
const CRC_AT: usize = 60;

/// The name of a Raft entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId {
    /// The term of the leader that made the entry.
    pub term: u64,
    /// The place of the entry in the sequence of all entries.
    pub index: u64,
}

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}

/// What a record's payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// Nothing: a new leader's first entry.
    Blank = 1,
    /// A batch of messages in the store encoding, back to back.
    Messages = 2,
    /// A change of the replicated metadata; opaque here.
    Command = 3,
    /// A Raft membership; opaque here.
    Membership = 4,
    /// Commands, and messages that are stored with them; the commands are opaque here.
    Transition = 5,
}

impl RecordKind {
    fn from_byte(byte: u8) -> Option<RecordKind> {
        match byte {
            1 => Some(RecordKind::Blank),
            2 => Some(RecordKind::Messages),
            3 => Some(RecordKind::Command),
            4 => Some(RecordKind::Membership),
            5 => Some(RecordKind::Transition),
            _ => None,
        }
    }

    /// Whether records of this kind may hold messages.
    pub fn has_messages(self) -> bool {
        matches!(self, RecordKind::Messages | RecordKind::Transition)
    }

    /// Where in a record of this kind with this payload the messages begin; where the payload ends, if it has none.
    fn messages_at(self, payload: &[u8]) -> Result<usize, TransitionError> {
        let in_payload = match self {
            RecordKind::Messages => 0,
            RecordKind::Transition => transition::messages_at(payload)?,
            RecordKind::Blank | RecordKind::Command | RecordKind::Membership => payload.len(),
        };
        Ok(HEADER_BYTES + in_payload)
    }
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Fewer bytes than a header, or than the header says.
    #[error("the record is cut short")]
    Short,
    /// Not the magic number: no record was written here.
    #[error("no record starts here (wrong magic number)")]
    Magic,
    /// The header's crc does not fit its bytes.
    #[error("the header's crc does not match")]
    HeaderCrc,
    /// The header is whole, but of a version, kind or flag this program does not know.
    #[error("a version, kind or flag this program does not know")]
    Unknown,
    /// The length is less than a header or more than [`RECORD_BYTES_MAX`].
    #[error("a length out of bounds")]
    Length,
    /// The payload's crc does not fit its bytes.
    #[error("the payload's crc does not match")]
    PayloadCrc,
    /// The payload of a transition is laid out in another way.
    #[error(transparent)]
    Transition(#[from] TransitionError),
    /// The disk does not give the bytes back.
    #[error("the disk does not give it back")]
    Lost,
}

impl RecordError {
    /// Whether the bytes are whole, and of a kind or version that a newer build writes.
    pub fn is_newer(self) -> bool {
        matches!(self, RecordError::Unknown | RecordError::Transition(TransitionError::Version(_)))
    }
}

/// The decoded header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// What the payload is.
    pub kind: RecordKind,
    /// Header and payload, in bytes.
    pub length: u32,
    /// Messages in the payload; 0 unless [`RecordKind::has_messages`].
    pub messages: u32,
    /// Raft term.
    pub term: u64,
    /// Raft index.
    pub index: u64,
    /// Where the record's first byte lies in the log.
    pub position: u64,
    /// crc32c of the payload.
    pub payload_crc: u32,
    /// Header crc of the record before this one.
    pub prev_crc: u32,
    /// This header's own crc, which the next record repeats.
    pub crc: u32,
}

impl RecordHeader {
    /// Decodes and checks the header at the start of `bytes`; the payload is not looked at.
    pub fn parse(bytes: &[u8]) -> Result<RecordHeader, RecordError> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(RecordError::Short)?;
        if bytes[..4] != MAGIC {
            return Err(RecordError::Magic);
        }
        let crc = u32_at(bytes, CRC_AT);
        if crc32c::crc32c(&bytes[..CRC_AT]) != crc {
            return Err(RecordError::HeaderCrc);
        }
        let kind = RecordKind::from_byte(bytes[5]);
        let (VERSION, Some(kind), [0, 0]) = (bytes[4], kind, [bytes[6], bytes[7]]) else {
            return Err(RecordError::Unknown);
        };
        let length = u32_at(bytes, 8);
        if !(HEADER_BYTES..=RECORD_BYTES_MAX).contains(&(length as usize)) {
            return Err(RecordError::Length);
        }
        Ok(RecordHeader {
            kind,
            length,
            messages: u32_at(bytes, 12),
            term: u64_at(bytes, 16),
            index: u64_at(bytes, 24),
            position: u64_at(bytes, 32),
            payload_crc: u32_at(bytes, 40),
            prev_crc: u32_at(bytes, 44),
            crc,
        })
    }

    /// The entry's name.
    pub fn id(&self) -> EntryId {
        EntryId { term: self.term, index: self.index }
    }

    /// The position after the record's last byte.
    pub fn end(&self) -> u64 {
        self.position.saturating_add(u64::from(self.length))
    }

    /// Writes the header into `bytes` and puts the crc into `self`.
    fn encode(&mut self, bytes: &mut [u8; HEADER_BYTES]) {
        bytes.fill(0);
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = self.kind as u8;
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.messages.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.term.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.index.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.position.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.prev_crc.to_le_bytes());
        self.crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&self.crc.to_le_bytes());
    }
}

/// A record with its bytes. Cloning counts a reference.
#[derive(Debug, Clone)]
pub struct Record {
    /// The decoded header.
    pub header: RecordHeader,
    frame: Bytes,
    /// Where in the frame the messages begin.
    messages_at: usize,
}

impl Record {
    /// Reads a record that fills `frame` exactly; header and payload are checked.
    pub fn parse(frame: Bytes) -> Result<Record, RecordError> {
        let header = RecordHeader::parse(&frame)?;
        if frame.len() != header.length as usize {
            return Err(RecordError::Short);
        }
        if crc32c::crc32c(&frame[HEADER_BYTES..]) != header.payload_crc {
            return Err(RecordError::PayloadCrc);
        }
        let messages_at = header.kind.messages_at(&frame[HEADER_BYTES..])?;
        Ok(Record { header, frame, messages_at })
    }

    /// Header and payload.
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// The payload, sharing the frame's memory.
    pub fn payload(&self) -> Bytes {
        self.frame.slice(HEADER_BYTES..)
    }

    /// The messages in the store encoding, back to back; none where the record's kind has none.
    pub fn messages(&self) -> &[u8] {
        self.frame.get(self.messages_at..).unwrap_or_default()
    }

    /// Where in the log the first message starts.
    pub fn messages_position(&self) -> u64 {
        self.header.position + self.messages_at as u64
    }

    /// The commands of a transition, in order, sharing the frame's memory; none of a record of another kind.
    pub fn commands(&self) -> Commands {
        let start = match self.header.kind {
            RecordKind::Transition => HEADER_BYTES + transition::HEAD_BYTES,
            _ => self.messages_at,
        };
        Commands::new(self.frame.clone(), start..self.messages_at)
    }

    /// The entry's name.
    pub fn id(&self) -> EntryId {
        self.header.id()
    }

    /// Where the record starts in the log.
    pub fn position(&self) -> u64 {
        self.header.position
    }

    /// The position after the record's last byte.
    pub fn end(&self) -> u64 {
        self.header.end()
    }
}

/// A record that is not in a log yet: a payload with room for the header in front of it, so that the bytes a caller
/// writes here are the very ones that go to disk and to the peers.
#[derive(Debug)]
pub struct Draft {
    kind: RecordKind,
    /// How many messages the payload holds; the log checks it against the payload.
    pub messages: u32,
    bytes: BytesMut,
}

impl Draft {
    /// An empty draft with room for `capacity` bytes of payload.
    pub fn new(kind: RecordKind, capacity: usize) -> Draft {
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + capacity);
        bytes.put_bytes(0, HEADER_BYTES);
        Draft { kind, messages: 0, bytes }
    }

    /// A draft with a copy of `payload`.
    pub fn with_payload(kind: RecordKind, payload: &[u8]) -> Draft {
        let mut draft = Draft::new(kind, payload.len());
        draft.bytes.extend_from_slice(payload);
        draft
    }

    /// A transition with these commands and no messages yet, and with room for `capacity` bytes of messages.
    pub fn transition(commands: &[Vec<u8>], capacity: usize) -> Result<Draft, TransitionError> {
        let head = transition::HEAD_BYTES
            + commands.iter().map(|command| transition::LENGTH_BYTES + command.len()).sum::<usize>();
        let mut draft = Draft::new(RecordKind::Transition, head.min(RECORD_BYTES_MAX) + capacity);
        transition::put(commands, &mut draft.bytes)?;
        Ok(draft)
    }

    /// What the payload is.
    pub fn kind(&self) -> RecordKind {
        self.kind
    }

    /// The buffer to append payload to. Its first [`HEADER_BYTES`] bytes are the header's: only append.
    pub fn payload_mut(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// The payload written so far.
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(HEADER_BYTES..).unwrap_or_default()
    }

    /// Bytes of the record this becomes, header included.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is no payload yet.
    pub fn is_empty(&self) -> bool {
        self.payload().is_empty()
    }

    /// Where in the record the messages begin.
    pub(crate) fn messages_at(&self) -> Result<usize, TransitionError> {
        self.kind.messages_at(self.payload())
    }

    /// The messages, to be stamped in place.
    pub(crate) fn messages_mut(&mut self, messages_at: usize) -> &mut [u8] {
        self.bytes.get_mut(messages_at..).unwrap_or_default()
    }

    /// Makes it a record. `None` when the length is out of bounds, somebody shortened the buffer below its header, or it is not
    /// laid out as its kind is (`transition.I1`).
    pub(crate) fn seal(mut self, id: EntryId, position: u64, prev_crc: u32) -> Option<Record> {
        if !(HEADER_BYTES..=RECORD_BYTES_MAX).contains(&self.bytes.len()) {
            return None;
        }
        let messages_at = self.messages_at().ok()?;
        let mut header = RecordHeader {
            kind: self.kind,
            length: self.bytes.len() as u32,
            messages: self.messages,
            term: id.term,
            index: id.index,
            position,
            payload_crc: crc32c::crc32c(self.payload()),
            prev_crc,
            crc: 0,
        };
        header.encode(self.bytes.first_chunk_mut()?);
        Some(Record { header, frame: self.bytes.freeze(), messages_at })
    }
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Record {
        let draft = Draft::with_payload(RecordKind::Command, b"payload");
        draft.seal(EntryId { term: 3, index: 0x0102 }, 0x0a0b, 0xdead_beef).unwrap()
    }

    #[test]
    fn golden_bytes_of_the_header() {
        let golden: [u8; HEADER_BYTES] = [
            b'F', b'o', b'L', b'R', 1, 3, 0, 0, // magic, version, kind, flags
            71, 0, 0, 0, 0, 0, 0, 0, // length, messages
            3, 0, 0, 0, 0, 0, 0, 0, // term
            2, 1, 0, 0, 0, 0, 0, 0, // index
            0x0b, 0x0a, 0, 0, 0, 0, 0, 0, // position
            0x70, 0x69, 0xe3, 0xf4, 0xef, 0xbe, 0xad, 0xde, // payload crc, previous header's crc
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // reserved
            0xe8, 0xf6, 0xc7, 0x25, // header crc
        ];
        assert_eq!(sample().frame()[..HEADER_BYTES], golden, "{:02x?}", &sample().frame()[..HEADER_BYTES]);
        assert_eq!(sample().payload()[..], *b"payload");
    }

    #[test]
    fn a_sealed_draft_parses_to_the_same_record() {
        let record = sample();
        let parsed = Record::parse(record.frame().clone()).unwrap();
        assert_eq!(parsed.header, record.header);
        assert_eq!((parsed.id(), parsed.end()), (EntryId { term: 3, index: 0x0102 }, 0x0a0b + 71));
    }

    /// Kinds are numbers on disk, the layout behind them is in `transition`.
    #[test]
    fn golden_bytes_of_a_record_of_a_transition() {
        let mut draft = Draft::transition(&[b"one".to_vec()], 8).unwrap();
        draft.messages = 1;
        draft.payload_mut().extend_from_slice(b"message");
        let record = draft.seal(EntryId { term: 3, index: 1 }, 0x0a0b, 0).unwrap();
        assert_eq!(record.frame()[4..16], [1, 5, 0, 0, 86, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(record.payload()[..], *b"\x01\0\x01\0\x07\0\0\0\x03\0\0\0onemessage");
        let parsed = Record::parse(record.frame().clone()).unwrap();
        assert_eq!(parsed.messages(), b"message");
        assert_eq!(parsed.messages_position(), 0x0a0b + 79);
        assert_eq!(parsed.commands().collect::<Vec<_>>(), [&b"one"[..]]);
        assert_eq!((sample().messages(), sample().commands().count()), (&b""[..], 0));
    }

    /// Its checksums are right, as those of a peer that means ill would be.
    #[test]
    fn transition_i1_a_sealed_record_with_a_broken_layout_is_refused() {
        let broken = Draft::with_payload(RecordKind::Transition, b"\x01\0\x01\0\xff\0\0\0");
        assert!(broken.seal(EntryId::default(), 0, 0).is_none());
        let mut frame = Draft::with_payload(RecordKind::Command, b"\x01\0\x01\0\xff\0\0\0")
            .seal(EntryId::default(), 0, 0)
            .unwrap()
            .frame()
            .to_vec();
        frame[5] = 5;
        let crc = crc32c::crc32c(&frame[..CRC_AT]);
        frame[CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        let refused = Record::parse(frame.into()).map(|record| record.header);
        assert_eq!(refused, Err(RecordError::Transition(TransitionError::Short)));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let frame = sample().frame().to_vec();
        for at in 0..frame.len() {
            for bit in 0..8 {
                let mut bad = frame.clone();
                bad[at] ^= 1 << bit;
                assert!(Record::parse(bad.into()).is_err(), "byte {at} bit {bit}");
            }
            assert!(Record::parse(Bytes::copy_from_slice(&frame[..at])).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_whole_header_with_a_wild_length_is_refused() {
        for length in [0, HEADER_BYTES as u32 - 1, RECORD_BYTES_MAX as u32 + 1, u32::MAX] {
            let mut header = RecordHeader { length, ..sample().header };
            let mut bytes = [0; HEADER_BYTES];
            header.encode(&mut bytes);
            assert_eq!(RecordHeader::parse(&bytes), Err(RecordError::Length));
        }
    }
}
