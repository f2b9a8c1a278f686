//! A header's fields on their way out, without a list of them in between.
//!
//! What has fields ([`Fields`]: every typed header, and [`ExtFields`]) hands them one by one to a
//! [`FieldWriter`]: an encoder, which writes them straight into the frame, or [`ExtFields`], which
//! keeps them. Not here: how a serialization writes a field (`frame`), how fields are read (`ext`).

use crate::ext::ExtFields;

/// Takes fields in the order they shall have on the wire. No key is given twice.
pub trait FieldWriter {
    /// Takes one field.
    fn text(&mut self, key: &str, value: &str);

    /// Takes a field that is a number.
    fn number(&mut self, key: &str, value: i64) {
        self.text(key, Digits::of(value).as_str());
    }
}

/// What has fields.
pub trait Fields {
    /// Hands all of them to `out`.
    fn write(&self, out: &mut impl FieldWriter);
}

impl Fields for ExtFields {
    fn write(&self, out: &mut impl FieldWriter) {
        self.iter().for_each(|(key, value)| out.text(key, value));
    }
}

impl FieldWriter for ExtFields {
    fn text(&mut self, key: &str, value: &str) {
        self.insert(key, value);
    }
}

/// Characters of the longest number, `i64::MIN`.
const DIGITS_MAX: usize = 20;

/// A number in decimal, on the stack.
pub(crate) struct Digits {
    bytes: [u8; DIGITS_MAX],
    start: usize,
}

impl Digits {
    pub(crate) fn of(value: i64) -> Self {
        let mut digits = Self { bytes: [b'-'; DIGITS_MAX], start: DIGITS_MAX };
        let mut rest = value.unsigned_abs();
        loop {
            digits.start -= 1;
            digits.bytes[digits.start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        // What no digit was written to is minus signs.
        digits.start -= usize::from(value < 0);
        digits
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_extremes_are_written_in_full() {
        for value in [0, -1, 9, 10, i64::from(i32::MIN), i64::MIN, i64::MAX] {
            assert_eq!(Digits::of(value).as_str(), value.to_string());
        }
    }

    proptest! {
        #[test]
        fn a_number_is_written_as_it_displays(value: i64) {
            let digits = Digits::of(value);
            prop_assert_eq!(digits.as_str(), value.to_string());
        }
    }
}
