//! One unit of a consume queue: where a message lies, as RocketMQ lays it out (integers big-endian).
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | position of the message in the commit log |
//! | 8 | 4 | bytes of the message |
//! | 12 | 8 | tags code: Java's hash of the TAGS property, sign-extended; 0 without tags |

/// Bytes of a unit.
pub const UNIT_BYTES: usize = 20;

/// Where one message of a queue lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit {
    /// Position of the message's first byte in the commit log.
    pub position: u64,
    /// Bytes of the message, never 0.
    pub size: u32,
    /// What tag filters compare.
    pub tags_code: i64,
}

impl Unit {
    pub(super) fn encode(&self) -> [u8; UNIT_BYTES] {
        let mut bytes = [0; UNIT_BYTES];
        bytes[..8].copy_from_slice(&self.position.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.size.to_be_bytes());
        bytes[12..].copy_from_slice(&self.tags_code.to_be_bytes());
        bytes
    }

    /// `None` for what no message leaves behind: a unit of size 0, such as a hole in a file.
    pub(super) fn decode(bytes: &[u8; UNIT_BYTES]) -> Option<Unit> {
        let [p0, p1, p2, p3, p4, p5, p6, p7, s0, s1, s2, s3, tags @ ..] = *bytes;
        let size = u32::from_be_bytes([s0, s1, s2, s3]);
        let position = u64::from_be_bytes([p0, p1, p2, p3, p4, p5, p6, p7]);
        (size > 0).then_some(Unit { position, size, tags_code: i64::from_be_bytes(tags) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let unit = Unit { position: 0x0102_0304_0506_0708, size: 0x0a0b, tags_code: -2 };
        let golden =
            [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0x0a, 0x0b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe];
        assert_eq!(unit.encode(), golden);
        assert_eq!(Unit::decode(&golden), Some(unit));
    }

    #[test]
    fn a_hole_is_not_a_unit() {
        assert_eq!(Unit::decode(&[0; UNIT_BYTES]), None);
    }
}
