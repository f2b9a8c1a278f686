//! Where the fields of a stored message lie, and the two operations that need nothing more:
//! peeking at a message's route, and stamping its offsets.

use crate::flags::sys_flag;
use crate::limits::MESSAGE_BYTES_MAX;

/// Magic of the first encoding.
pub const MAGIC_V1: u32 = 0xDAA3_20A7;
/// Magic of the second encoding, whose topic length takes two bytes.
pub const MAGIC_V2: u32 = 0xDAA3_20AB;
/// Magic of filler at the end of RocketMQ's own files; never sent to clients.
pub const MAGIC_BLANK: u32 = 0xCBD4_3194;

/// Position of TOTALSIZE.
pub const TOTAL_SIZE_AT: usize = 0;
/// Position of MAGIC.
pub const MAGIC_AT: usize = 4;
/// Position of BODYCRC.
pub const BODY_CRC_AT: usize = 8;
/// Position of QUEUEID.
pub const QUEUE_ID_AT: usize = 12;
/// Position of FLAG.
pub const FLAG_AT: usize = 16;
/// Position of QUEUEOFFSET.
pub const QUEUE_OFFSET_AT: usize = 20;
/// Position of PHYSICALOFFSET.
pub const PHYSICAL_OFFSET_AT: usize = 28;
/// Position of SYSFLAG.
pub const SYS_FLAG_AT: usize = 36;
/// Position of BORNTIMESTAMP.
pub const BORN_TIMESTAMP_AT: usize = 40;
pub(super) const BORN_HOST_AT: usize = 48;

/// The shortest message: IPv4 hosts, nothing in it.
pub const MESSAGE_BYTES_MIN: usize = 91;

pub(super) const HOST_V4_BYTES: usize = 8;
pub(super) const HOST_V6_BYTES: usize = 20;

/// Why bytes are no stored message, or a message cannot be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Fewer bytes than the shortest message or than TOTALSIZE says.
    #[error("the message needs {needed} bytes, {available} are there")]
    Short {
        /// What it needs.
        needed: usize,
        /// What there is.
        available: usize,
    },
    /// TOTALSIZE is negative, below the shortest message, or above the longest.
    #[error("the message's TOTALSIZE {0} is impossible")]
    TotalSize(i32),
    /// A magic that is no message's.
    #[error("the message's MAGIC {0:#010x} is unknown")]
    Magic(u32),
    /// A field reaches past the message, or the fields do not fill it.
    #[error("the message's {0} does not fit its TOTALSIZE")]
    Field(&'static str),
    /// The topic is not UTF-8.
    #[error("the message's topic is not UTF-8")]
    TopicUtf8,
    /// The body's checksum differs.
    #[error("the message's body has crc {actual:#010x}, BODYCRC says {stored:#010x}")]
    BodyCrc {
        /// What BODYCRC says.
        stored: u32,
        /// What the body has.
        actual: u32,
    },
    /// A part is too long to be encoded.
    #[error("the message's {what} has {bytes} bytes, the limit is {max}")]
    TooLong {
        /// Which part.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

/// Where the parts of one message lie, each checked against its TOTALSIZE (message.I1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) total: usize,
    pub(super) store_timestamp_at: usize,
    pub(super) reconsume_times_at: usize,
    pub(super) body: (usize, usize),
    pub(super) topic: (usize, usize),
    pub(super) properties: (usize, usize),
}

impl Layout {
    /// Finds the parts of the first message in `bytes`.
    pub(super) fn of(bytes: &[u8]) -> Result<Self, MessageError> {
        let total = total_size(bytes)?;
        let message = &bytes[..total];
        let topic_length_bytes = match u32_at(message, MAGIC_AT)? {
            MAGIC_V1 => 1,
            MAGIC_V2 => 2,
            other => return Err(MessageError::Magic(other)),
        };
        let flag = i32_at(message, SYS_FLAG_AT)?;
        let store_timestamp_at = BORN_HOST_AT + host_bytes(flag, sys_flag::BORN_HOST_V6);
        let reconsume_times_at = store_timestamp_at + 8 + host_bytes(flag, sys_flag::STORE_HOST_V6);
        let body = part(message, reconsume_times_at + 12, 4, "body")?;
        let topic = part(message, body.1, topic_length_bytes, "topic")?;
        let properties = part(message, topic.1, 2, "properties")?;
        if properties.1 != total {
            return Err(MessageError::Field("properties"));
        }
        Ok(Self { total, store_timestamp_at, reconsume_times_at, body, topic, properties })
    }
}

fn total_size(bytes: &[u8]) -> Result<usize, MessageError> {
    let available = bytes.len();
    let Some(word) = bytes.first_chunk() else {
        return Err(MessageError::Short { needed: MESSAGE_BYTES_MIN, available });
    };
    let word = i32::from_be_bytes(*word);
    let total = usize::try_from(word).map_err(|_| MessageError::TotalSize(word))?;
    if !(MESSAGE_BYTES_MIN..=MESSAGE_BYTES_MAX).contains(&total) {
        return Err(MessageError::TotalSize(word));
    }
    if total > available {
        return Err(MessageError::Short { needed: total, available });
    }
    Ok(total)
}

pub(super) const fn host_bytes(sys_flag: i32, v6_bit: i32) -> usize {
    if sys_flag & v6_bit == 0 { HOST_V4_BYTES } else { HOST_V6_BYTES }
}

/// The range of a part whose length stands before it in `width` bytes, signed as Java reads it.
fn part(message: &[u8], at: usize, width: usize, what: &'static str) -> Result<(usize, usize), MessageError> {
    let length = message.get(at..at + width).ok_or(MessageError::Field(what))?;
    if length[0] & 0x80 != 0 {
        return Err(MessageError::Field(what));
    }
    let length = length.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
    let start = at + width;
    // Four bytes with the top bit clear: no overflow on 32 bits either, as `total` is bounded.
    let end = start.checked_add(length).filter(|end| *end <= message.len());
    Ok((start, end.ok_or(MessageError::Field(what))?))
}

pub(super) fn array_at<const N: usize>(message: &[u8], at: usize) -> Result<[u8; N], MessageError> {
    let bytes = message.get(at..at + N).and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or(MessageError::Short { needed: at + N, available: message.len() })
}

pub(super) fn u32_at(message: &[u8], at: usize) -> Result<u32, MessageError> {
    Ok(u32::from_be_bytes(array_at(message, at)?))
}

pub(super) fn i32_at(message: &[u8], at: usize) -> Result<i32, MessageError> {
    Ok(i32::from_be_bytes(array_at(message, at)?))
}

/// What the append path needs of a message to stamp it, and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route<'a> {
    /// Bytes of the whole message.
    pub total_size: usize,
    /// The topic's bytes, not checked to be UTF-8.
    pub topic: &'a [u8],
    /// QUEUEID.
    pub queue_id: u32,
    /// QUEUEOFFSET as it stands.
    pub queue_offset: u64,
    /// PHYSICALOFFSET as it stands.
    pub physical_offset: u64,
}

/// Reads the route of the first message in `bytes`: every length checked, properties not read,
/// checksum not computed.
pub fn peek(bytes: &[u8]) -> Result<Route<'_>, MessageError> {
    let layout = Layout::of(bytes)?;
    Ok(Route {
        total_size: layout.total,
        topic: &bytes[layout.topic.0..layout.topic.1],
        queue_id: u32_at(bytes, QUEUE_ID_AT)?,
        queue_offset: u64::from_be_bytes(array_at(bytes, QUEUE_OFFSET_AT)?),
        physical_offset: u64::from_be_bytes(array_at(bytes, PHYSICAL_OFFSET_AT)?),
    })
}

/// BODYCRC of the first message in `bytes`, whose size is not checked.
pub fn stored_body_crc(bytes: &[u8]) -> Result<u32, MessageError> {
    u32_at(bytes, BODY_CRC_AT)
}

/// Where PREPAREDTRANSACTIONOFFSET is in the message that `bytes` begin with.
pub(crate) fn prepared_transaction_offset_at(bytes: &[u8]) -> Result<usize, MessageError> {
    Ok(Layout::of(bytes)?.reconsume_times_at + 4)
}

/// Writes the offsets of the message that starts at `message[0]` (message.I3).
///
/// # Panics
/// If `message` is shorter than the fields: the caller has peeked at it before.
pub fn stamp(message: &mut [u8], queue_offset: u64, physical_offset: u64) {
    message[QUEUE_OFFSET_AT..PHYSICAL_OFFSET_AT].copy_from_slice(&queue_offset.to_be_bytes());
    message[PHYSICAL_OFFSET_AT..SYS_FLAG_AT].copy_from_slice(&physical_offset.to_be_bytes());
}
