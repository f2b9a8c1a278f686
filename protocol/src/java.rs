//! The one piece of Java that is part of the format: `String.hashCode`.
//!
//! Consume queues, tag filters and the key index all carry it, so it must agree with what clients
//! compute, bit for bit.

/// Java's `String.hashCode`: `h = 31 * h + unit` over UTF-16 units, wrapping at 32 bits.
pub fn string_hash(text: &str) -> i32 {
    if text.is_ascii() {
        return text.bytes().fold(0i32, |hash, byte| step(hash, u16::from(byte)));
    }
    text.encode_utf16().fold(0i32, step)
}

fn step(hash: i32, unit: u16) -> i32 {
    hash.wrapping_mul(31).wrapping_add(i32::from(unit))
}

/// The code a consume queue stores for a `TAGS` value: its hash, sign-extended; 0 for no tag.
pub fn tags_code(tags: &str) -> i64 {
    i64::from(string_hash(tags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_agree_with_a_java_machine() {
        assert_eq!(string_hash(""), 0);
        assert_eq!(string_hash("a"), 97);
        assert_eq!(string_hash("TagA"), 2_598_919);
        assert_eq!(string_hash("hello"), 99_162_322);
        assert_eq!(string_hash("polygenelubricants"), i32::MIN);
        assert_eq!(string_hash("中"), 0x4e2d);
    }

    #[test]
    fn characters_beyond_the_basic_plane_count_as_two_units() {
        assert_eq!(string_hash("😀"), 0xd83d * 31 + 0xde00);
    }

    #[test]
    fn a_negative_hash_is_sign_extended() {
        assert_eq!(tags_code("polygenelubricants"), i64::from(i32::MIN));
    }
}
