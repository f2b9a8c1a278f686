//! One unit of a consume queue: where a message lies, as RocketMQ lays it out (integers big-endian), with a check in the
//! bits that are zero there.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 2 | check, its upper 16 bits |
//! | 2 | 6 | position of the message in the commit log |
//! | 8 | 1 | check, its lower 8 bits |
//! | 9 | 3 | bytes of the message, never 0 |
//! | 12 | 8 | tags code: Java's hash of the TAGS property, sign-extended; 0 without tags |
//!
//! The check is the lower 24 bits of a crc32c over the topic's bytes, the queue's number (4), the unit's offset (8),
//! position (8), size (4) and tags code (8). So not only flipped bits and zeroed pages show, but also a unit that was
//! written to the wrong place or into the wrong file. A unit without the check counts as damaged: units are derived, and
//! built again from the log.

use std::sync::Arc;

/// Bytes of a unit.
pub const UNIT_BYTES: usize = 20;

/// The first position that no unit can hold: 256 TiB of log.
const POSITION_END: u64 = 1 << 48;
/// The first size that no unit can hold; a record, and hence a message, has half of it at most.
const SIZE_END: u32 = 1 << 24;

/// Where one message of a queue lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit {
    /// Position of the message's first byte in the commit log, below 2^48.
    pub position: u64,
    /// Bytes of the message, never 0, below 2^24.
    pub size: u32,
    /// What tag filters compare.
    pub tags_code: i64,
}

/// A place in a consume queue.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnitPlace {
    /// The topic.
    pub topic: Arc<str>,
    /// The queue.
    pub queue: u32,
    /// The offset.
    pub offset: u64,
}

/// The part of the check that all units of a queue share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seed(u32);

impl Seed {
    pub(super) fn of(topic: &str, queue: u32) -> Seed {
        Seed(crc32c::crc32c_append(crc32c::crc32c(topic.as_bytes()), &queue.to_be_bytes()))
    }
}

impl Unit {
    /// Whether the layout has room for it.
    pub(super) fn fits(&self) -> bool {
        self.position < POSITION_END && (1..SIZE_END).contains(&self.size)
    }

    /// The bytes of the unit of a queue's message `offset`.
    pub(super) fn encode(&self, seed: Seed, offset: u64) -> [u8; UNIT_BYTES] {
        assert!(self.fits(), "queues.I5: no unit holds {self:?}");
        let check = self.check(seed, offset);
        let mut bytes = [0; UNIT_BYTES];
        bytes[..8].copy_from_slice(&(u64::from(check >> 8) << 48 | self.position).to_be_bytes());
        bytes[8..12].copy_from_slice(&((check & 0xff) << 24 | self.size).to_be_bytes());
        bytes[12..].copy_from_slice(&self.tags_code.to_be_bytes());
        bytes
    }

    /// `None` for what is not the unit of that message of that queue.
    pub(super) fn decode(bytes: &[u8; UNIT_BYTES], seed: Seed, offset: u64) -> Option<Unit> {
        let [p0, p1, p2, p3, p4, p5, p6, p7, s0, s1, s2, s3, tags @ ..] = *bytes;
        let position = u64::from_be_bytes([p0, p1, p2, p3, p4, p5, p6, p7]);
        let size = u32::from_be_bytes([s0, s1, s2, s3]);
        let check = ((position >> 48) as u32) << 8 | size >> 24;
        let unit = Unit {
            position: position % POSITION_END,
            size: size % SIZE_END,
            tags_code: i64::from_be_bytes(tags),
        };
        (unit.size > 0 && unit.check(seed, offset) == check).then_some(unit)
    }

    fn check(&self, seed: Seed, offset: u64) -> u32 {
        let mut covered = [0; 28];
        covered[..8].copy_from_slice(&offset.to_be_bytes());
        covered[8..16].copy_from_slice(&self.position.to_be_bytes());
        covered[16..20].copy_from_slice(&self.size.to_be_bytes());
        covered[20..].copy_from_slice(&self.tags_code.to_be_bytes());
        crc32c::crc32c_append(seed.0, &covered) & 0xff_ffff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: Unit = Unit { position: 0x0304_0506_0708, size: 0x0a_0b0c, tags_code: -2 };

    #[test]
    fn golden_bytes() {
        let golden = [
            0xc7, 0xf1, 3, 4, 5, 6, 7, 8, 0xd4, 0x0a, 0x0b, 0x0c, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            0xfe,
        ];
        let seed = Seed::of("orders", 3);
        assert_eq!(UNIT.encode(seed, 7), golden, "{:02x?}", UNIT.encode(seed, 7));
        assert_eq!(Unit::decode(&golden, seed, 7), Some(UNIT));
    }

    #[test]
    fn a_flipped_bit_a_hole_and_a_unit_without_check_are_no_units() {
        let seed = Seed::of("orders", 3);
        let whole = UNIT.encode(seed, 7);
        for bit in 0..UNIT_BYTES * 8 {
            let mut bytes = whole;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Unit::decode(&bytes, seed, 7), None, "bit {bit}");
        }
        assert_eq!(Unit::decode(&[0; UNIT_BYTES], seed, 7), None);
        let mut bare = whole;
        (bare[0], bare[1], bare[8]) = (0, 0, 0);
        assert_eq!(Unit::decode(&bare, seed, 7), None);
    }

    #[test]
    fn a_unit_of_another_place_or_queue_is_no_unit() {
        let (seed, bytes) = (Seed::of("orders", 3), UNIT.encode(Seed::of("orders", 3), 7));
        for offset in (0..100_000).filter(|offset| *offset != 7) {
            assert_eq!(Unit::decode(&bytes, seed, offset), None, "offset {offset}");
        }
        for (topic, queue) in [("orders", 4), ("order", 3), ("Orders", 3), ("%RETRY%orders", 3)] {
            assert_eq!(Unit::decode(&bytes, Seed::of(topic, queue), 7), None, "{topic} {queue}");
        }
    }

    #[test]
    fn what_the_layout_has_no_room_for_does_not_fit() {
        for unit in [
            Unit { position: POSITION_END, ..UNIT },
            Unit { size: SIZE_END, ..UNIT },
            Unit { size: 0, ..UNIT },
        ] {
            assert!(!unit.fits(), "{unit:?}");
        }
        let greatest = Unit { position: POSITION_END - 1, size: SIZE_END - 1, tags_code: i64::MIN };
        let seed = Seed::of("t", 0);
        assert_eq!(Unit::decode(&greatest.encode(seed, u64::MAX), seed, u64::MAX), Some(greatest));
    }
}
