//! Changes: of a request's parts, of its body, of its bytes.

use bytes::{BufMut, Bytes, BytesMut};

use super::raw::{Raw, Value};
use crate::nemesis::Dice;

/// Numbers at the edges of every type there is.
const NUMBERS: [&str; 18] = [
    "0",
    "-0",
    "-1",
    "1",
    "127",
    "128",
    "32767",
    "65536",
    "2147483647",
    "2147483648",
    "-2147483648",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "99999999999999999999999999",
    "1e999",
    "0.5",
    "NaN",
];
/// JSON that is no string.
const BARE: [&str; 9] = ["null", "true", "[]", "{}", "[1,2]", "{\"a\":{}}", "0", "-1", "1e999"];
/// Lengths of names, below and above the limits.
const LENGTHS: [u64; 8] = [0, 1, 120, 127, 255, 256, 32_768, 70_000];
/// Fields that requests have somewhere.
const KEYS: [&str; 12] = [
    "topic",
    "consumerGroup",
    "queueId",
    "queueOffset",
    "commitOffset",
    "sysFlag",
    "subscription",
    "clientID",
    "group",
    "b",
    "i",
    "e",
];

/// Changes one thing of the request.
pub(super) fn request(raw: &mut Raw, dice: &mut Dice) {
    match dice.below(14) {
        0..=5 => field(raw, dice),
        6 => {
            if !raw.fields.is_empty() {
                raw.fields.remove(dice.below(raw.fields.len() as u64) as usize);
            }
        }
        7 => {
            let key = dice.one_of(&KEYS).copied().unwrap_or_default();
            let value = value(b"", dice);
            raw.fields.push((key.as_bytes().to_vec(), value));
        }
        8 => {
            if let Some(twice) = dice.one_of(&raw.fields).cloned() {
                raw.fields.push(twice);
            }
        }
        9 => raw.code = raw.code.wrapping_add(dice.below(5) as i32 - 2),
        10 => raw.flag = [1, 2, 3, -1, i32::MAX, i32::MIN][dice.below(6) as usize],
        11 => raw.version = [0, -1, i32::MAX, 1][dice.below(4) as usize],
        12 => raw.opaque = [0, -1, i32::MAX, i32::MIN, 1][dice.below(5) as usize],
        _ => body(&mut raw.body, dice),
    }
}

/// Changes one field's value, or its name.
fn field(raw: &mut Raw, dice: &mut Dice) {
    let Some(at) = (!raw.fields.is_empty()).then(|| dice.below(raw.fields.len() as u64) as usize) else {
        return body(&mut raw.body, dice);
    };
    let (key, old) = &mut raw.fields[at];
    if dice.one_in(12) {
        *key = text(key, dice);
    } else {
        *old = value(old.bytes(), dice);
    }
}

fn value(old: &[u8], dice: &mut Dice) -> Value {
    match dice.below(4) {
        0 => Value::Text(dice.one_of(&NUMBERS).copied().unwrap_or_default().into()),
        1 => Value::Bare(dice.one_of(&BARE).copied().unwrap_or_default().into()),
        _ => Value::Text(text(old, dice)),
    }
}

/// Another text: long, empty, cut, with a bit turned, no UTF-8, with characters that no name has.
fn text(old: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut new = old.to_vec();
    match dice.below(7) {
        0 => new = vec![b'n'; dice.one_of(&LENGTHS).copied().unwrap_or(0) as usize],
        1 => new.truncate(dice.below(old.len() as u64 + 1) as usize),
        2 => flip(&mut new, dice),
        3 => new.extend(b"\xff\xfe\x80"),
        4 => new.extend("\u{0}\u{1}\u{2}%RETRY%$| \u{1F98A}".as_bytes()),
        5 => new = b"%RETRY%%DLQ%TBW102".to_vec(),
        _ => new.extend(old.to_vec()),
    }
    new
}

/// Turns one bit.
fn flip(bytes: &mut [u8], dice: &mut Dice) {
    let at = dice.below(bytes.len() as u64) as usize;
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << dice.below(8);
    }
}

/// Changes a body: cut, with a bit turned, doubled, with a number or a string in it replaced.
fn body(body: &mut Vec<u8>, dice: &mut Dice) {
    match dice.below(7) {
        0 => body.truncate(dice.below(body.len() as u64 + 1) as usize),
        1 => flip(body, dice),
        2 => body.extend(body.clone()),
        3 => *body = b"{\"clientID\":[[[[[[[[{}".to_vec(),
        4 => replace_run(body, dice, |byte| byte.is_ascii_digit(), &NUMBERS),
        5 => replace_run(body, dice, |byte| byte.is_ascii_alphanumeric(), &BARE),
        _ => body.extend(b"\xff\xff\xff\xff"),
    }
}

/// Replaces one run of such bytes.
fn replace_run(body: &mut Vec<u8>, dice: &mut Dice, is_part: fn(u8) -> bool, by: &[&str]) {
    let from = dice.below(body.len() as u64 + 1) as usize;
    let Some(start) = body[from..].iter().position(|byte| is_part(*byte)).map(|at| from + at) else { return };
    let end = body[start..].iter().position(|byte| !is_part(*byte)).map_or(body.len(), |at| start + at);
    let new = dice.one_of(by).copied().unwrap_or_default();
    body.splice(start..end, new.bytes());
}

/// Changes a frame's bytes: most of these end the connection.
pub(super) fn bytes(frame: &Bytes, dice: &mut Dice) -> Bytes {
    let mut out = BytesMut::from(&frame[..]);
    match dice.below(7) {
        0 => out.truncate(dice.below(frame.len() as u64) as usize),
        1 => flip(&mut out, dice),
        2 => put_word(&mut out, 0, dice),
        3 => put_word(&mut out, 4, dice),
        4 => out.put_slice(frame),
        5 => out.put_slice(&frame[..frame.len() / 2]),
        _ => {
            // The other serialization's mark.
            if let Some(mark) = out.get_mut(4) {
                *mark ^= 1;
            }
        }
    }
    out.freeze()
}

fn put_word(out: &mut BytesMut, at: usize, dice: &mut Dice) {
    const WORDS: [u32; 8] = [0, 3, 4, 0x00ff_ffff, 1 << 24, 16 << 20, 0x7fff_ffff, u32::MAX];
    let word = dice.one_of(&WORDS).copied().unwrap_or(0);
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&word.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn original() -> Raw {
        Raw::new(11, &[("topic", "t"), ("queueId", "3")]).with_body("{\"clientID\":\"c\",\"n\":12}")
    }

    #[test]
    fn most_changes_change_something_and_none_panics() {
        let mut dice = Dice::new(1);
        let mut same = 0;
        for _ in 0..20_000 {
            let mut raw = original();
            request(&mut raw, &mut dice);
            same += u32::from(raw == original());
            let frame = raw.encode();
            let _ = bytes(&frame, &mut dice);
        }
        // A cut at the end and a code that stays are no change.
        assert!(same < 3000, "{same}");
    }

    #[test]
    fn requests_without_fields_or_body_can_be_changed_as_well() {
        let mut dice = Dice::new(2);
        for _ in 0..5000 {
            let mut raw = Raw::new(105, &[]);
            request(&mut raw, &mut dice);
            body(&mut raw.body, &mut dice);
        }
    }

    #[test]
    fn a_number_in_a_body_is_replaced_as_a_whole() {
        let mut body = b"{\"n\":12}".to_vec();
        let mut dice = Dice::new(3);
        while body == b"{\"n\":12}" {
            replace_run(&mut body, &mut dice, |byte| byte.is_ascii_digit(), &["-1"]);
        }
        let text = String::from_utf8(body).unwrap();
        assert!(text == "{\"n\":-1}" || text == "{\"n\":1-1}", "{text}");
    }
}
