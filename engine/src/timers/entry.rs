//! What the index knows of a parked message, and the blocks that entries lie in on the disk.
//!
//! A block has 4,096 bytes (integers little-endian):
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 32 i | 8 | due time of entry `i`, ms since the epoch |
//! | 32 i + 8 | 8 | position |
//! | 32 i + 16 | 4 | bytes of the message |
//! | 32 i + 20 | 4 | hash of its real topic |
//! | 32 i + 24 | 8 | hash of its unique key |
//! | 4,088 | 4 | number of entries, 1 to [`BLOCK_ENTRIES`] |
//! | 4,092 | 4 | crc32c of everything before, continued from the block's number in the file |

use folio_protocol::message::MessageView;
use folio_protocol::parked::{self, TimerKey};
use folio_protocol::properties::UNIQUE_KEY;

/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 4096;
/// Entries of a block at most.
pub(super) const BLOCK_ENTRIES: usize = 127;

const ENTRY_BYTES: usize = 32;
const COUNT_AT: usize = 4088;
const CRC_AT: usize = 4092;

/// A parked message, as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimerEntry {
    /// Its turn, and where it lies.
    pub key: TimerKey,
    /// Its length.
    pub bytes: u32,
    /// [`name_hash`] of its real topic, the lower half.
    pub topic_hash: u32,
    /// [`name_hash`] of its unique key.
    pub unique_hash: u64,
}

impl TimerEntry {
    /// The entry of a parked message that lies at `position`.
    pub(super) fn of(message: &MessageView<'_>, position: u64) -> TimerEntry {
        TimerEntry {
            key: TimerKey { position, ..parked::key(message) },
            bytes: message.total_size() as u32,
            topic_hash: topic_hash(parked::real_topic(message).unwrap_or_default()),
            unique_hash: name_hash(message.property(UNIQUE_KEY).unwrap_or_default()),
        }
    }
}

/// The hash by which entries of one topic are found: others may have the same.
pub fn topic_hash(topic: &str) -> u32 {
    name_hash(topic) as u32
}

/// The hash by which a name is found: others may have the same. It is stored, so it is the same in every build: FNV-1a.
pub fn name_hash(name: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

/// A block of 1 to [`BLOCK_ENTRIES`] entries, appended to `out`.
pub(super) fn put_block(number: u64, entries: &[TimerEntry], out: &mut Vec<u8>) {
    let start = out.len();
    for entry in entries {
        out.extend(entry.key.due_ms.to_le_bytes());
        out.extend(entry.key.position.to_le_bytes());
        out.extend(entry.bytes.to_le_bytes());
        out.extend(entry.topic_hash.to_le_bytes());
        out.extend(entry.unique_hash.to_le_bytes());
    }
    out.resize(start + COUNT_AT, 0);
    out.extend((entries.len() as u32).to_le_bytes());
    let crc = crc(number, &out[start..]);
    out.extend(crc.to_le_bytes());
}

/// The entries of a block; `None` for one that is not whole, or another one than that.
pub(super) fn take_block(number: u64, block: &[u8]) -> Option<Vec<TimerEntry>> {
    let (covered, stored) = block.split_at_checked(CRC_AT)?;
    if stored != crc(number, covered).to_le_bytes() {
        return None;
    }
    let count = u32::from_le_bytes(*covered[COUNT_AT..].first_chunk()?) as usize;
    if !(1..=BLOCK_ENTRIES).contains(&count) {
        return None;
    }
    covered.chunks_exact(ENTRY_BYTES).take(count).map(decode).collect()
}

fn decode(bytes: &[u8]) -> Option<TimerEntry> {
    let long = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let short = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    Some(TimerEntry {
        key: TimerKey { due_ms: long(0)?, position: long(8)? },
        bytes: short(16)?,
        topic_hash: short(20)?,
        unique_hash: long(24)?,
    })
}

fn crc(number: u64, covered: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), covered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64) -> TimerEntry {
        let key = TimerKey { due_ms: 0x0102_0304 + number, position: 0x0a0b };
        TimerEntry { key, bytes: 7, topic_hash: 8, unique_hash: 9 }
    }

    #[test]
    fn golden_bytes_of_a_block() {
        let mut block = Vec::new();
        put_block(3, &[entry(0)], &mut block);
        assert_eq!(block.len(), BLOCK_BYTES);
        let golden =
            [4, 3, 2, 1, 0, 0, 0, 0, 0x0b, 0x0a, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0];
        assert_eq!((&block[..28], &block[4088..4092]), (&golden[..], &[1, 0, 0, 0][..]));
        assert_eq!(name_hash("orders"), 0x0012_5d92_50be_8b4c);
    }

    #[test]
    fn what_is_not_whole_or_of_another_place_is_no_block() {
        let entries: Vec<TimerEntry> = (0..BLOCK_ENTRIES as u64).map(entry).collect();
        let mut block = Vec::new();
        put_block(3, &entries, &mut block);
        assert_eq!(take_block(3, &block).as_deref(), Some(&entries[..]));
        assert_eq!(take_block(4, &block), None);
        assert_eq!(take_block(3, &block[..4095]), None);
        for at in [0, 100, 4088, 4095] {
            let mut broken = block.clone();
            broken[at] ^= 1;
            assert_eq!(take_block(3, &broken), None);
        }
    }
}
