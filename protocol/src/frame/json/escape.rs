//! Escapes of a JSON string, replaced where they stand: what they stand for is never longer.

/// The first `first` or `second` in `bytes`. Looks at eight bytes at a time: a header is mostly the insides of strings.
/// These are short, so that a call of `memchr2` costs more than it saves: 850 ns a SEND's header beside 820 (the
/// benchmark `header/json/decode_send`, builds taking turns three times).
#[inline]
pub(super) fn find(bytes: &[u8], first: u8, second: u8) -> Option<usize> {
    let (firsts, seconds) = (u64::from_ne_bytes([first; 8]), u64::from_ne_bytes([second; 8]));
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = zeros(word ^ firsts) | zeros(word ^ seconds);
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let found = rest.iter().position(|byte| *byte == first || *byte == second)?;
    Some(words.len() * 8 + found)
}

/// The top bit of each zero byte, and perhaps of bytes above one: the lowest bit that is set is right.
const fn zeros(word: u64) -> u64 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const TOP: u64 = 0x8080_8080_8080_8080;
    word.wrapping_sub(LOW) & !word & TOP
}

/// Replaces the escapes in a string literal's inside, which is UTF-8, and returns the bytes left; `None` if one is
/// malformed. A lone surrogate, which no UTF-8 can carry, becomes U+FFFD.
pub(super) fn unescape(text: &mut [u8]) -> Option<usize> {
    let (mut from, mut to) = (0, 0);
    while let Some(plain) = find(&text[from..], b'\\', b'\\') {
        text.copy_within(from..from + plain, to);
        (from, to) = (from + plain, to + plain);
        let (read, character) = escape(&text[from..])?;
        let mut utf8 = [0; 4];
        let utf8 = character.encode_utf8(&mut utf8).as_bytes();
        text[to..to + utf8.len()].copy_from_slice(utf8);
        (from, to) = (from + read, to + utf8.len());
    }
    text.copy_within(from.., to);
    Some(to + text.len() - from)
}

/// The escape that `text` starts with: its bytes, and the character it stands for.
fn escape(text: &[u8]) -> Option<(usize, char)> {
    let character = match text.get(1)? {
        b'u' => return unit_escape(text),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        kind @ (b'"' | b'\\' | b'/') => char::from(*kind),
        _ => return None,
    };
    Some((2, character))
}

/// `\uXXXX`, and the second half of a surrogate pair with it.
fn unit_escape(text: &[u8]) -> Option<(usize, char)> {
    const BYTES: usize = 6;
    let first = unit(text)?;
    if let (0xD800..=0xDBFF, Some(second @ 0xDC00..=0xDFFF)) = (first, unit(&text[BYTES..])) {
        let scalar = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        return Some((2 * BYTES, char::from_u32(scalar)?));
    }
    Some((BYTES, char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER)))
}

fn unit(text: &[u8]) -> Option<u32> {
    let digits = text.strip_prefix(b"\\u")?.first_chunk::<4>()?;
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unescaped(text: &str) -> Option<String> {
        let mut bytes = text.as_bytes().to_vec();
        let length = unescape(&mut bytes)?;
        bytes.truncate(length);
        Some(String::from_utf8(bytes).expect("UTF-8 stays UTF-8"))
    }

    #[test]
    fn a_pair_is_one_character_and_half_of_one_a_replacement() {
        assert_eq!(unescaped(r"a\ud83d\ude00b").as_deref(), Some("a😀b"));
        assert_eq!(unescaped(r"\ud83d\u0041\ude00").as_deref(), Some("\u{fffd}A\u{fffd}"));
        assert_eq!(unescaped(r"\ud83d\ud83d\ude00é").as_deref(), Some("\u{fffd}😀é"));
    }

    #[test]
    fn an_escape_that_is_cut_or_unknown_is_none() {
        for text in ["\\", "a\\", r"\u", r"\u123", r"\u+123", r"\u12g4", r"\x", r"\é", r"\u00é1"] {
            assert_eq!(unescaped(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_first_of_two_bytes_is_found(bytes: Vec<u8>, first: u8, second: u8) {
            let simple = bytes.iter().position(|byte| *byte == first || *byte == second);
            prop_assert_eq!(find(&bytes, first, second), simple);
        }

        #[test]
        fn escapes_stand_for_what_others_read(text: String, ascii: bool) {
            let quoted = serde_json::to_string(&text).expect("a string");
            let inner = &quoted[1..quoted.len() - 1];
            // Some clients escape all that is not ASCII, in UTF-16 units.
            let unit = |unit: u16| format!("\\u{unit:04x}");
            let wide = |c: char| c.encode_utf16(&mut [0; 2]).iter().copied().map(unit).collect::<String>();
            let all = inner.chars().map(|c| if c.is_ascii() { c.to_string() } else { wide(c) });
            let inner = if ascii { all.collect() } else { inner.to_owned() };
            prop_assert_eq!(unescaped(&inner), Some(text));
        }

        #[test]
        fn arbitrary_texts_are_read_without_panic(text in r#"([a-z😀é]|\\[\\"u/nx]|\\u[0-9d-g]{0,4}){0,9}"#) {
            let _ = unescaped(&text);
        }
    }
}
