//! The body of SEND_BATCH_MESSAGE: small messages of one topic back to back.
//!
//! | field | bytes |
//! |---|---|
//! | total | 4 |
//! | magic | 4, 0 |
//! | body crc | 4, 0: the server computes it |
//! | flag | 4 |
//! | body | 4 + n |
//! | properties | 2 + n |

use std::ops::Range;

use bytes::{BufMut, BytesMut};

use crate::limits::PROPERTIES_BYTES_MAX;

/// Bytes of a message without body and properties.
pub const ITEM_BYTES_MIN: usize = 22;
const BODY_AT: usize = 20;

/// Why a body is no batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than an item's head or than it says.
    #[error("the batch item at byte {at} reaches past the body")]
    Short {
        /// Where the item starts.
        at: usize,
    },
    /// A length is negative, or the parts do not fill the item.
    #[error("the batch item at byte {at} has an impossible {what}")]
    Length {
        /// Where the item starts.
        at: usize,
        /// Which part.
        what: &'static str,
    },
    /// A part is too long to be encoded.
    #[error("the batch item's {what} has {bytes} bytes, the limit is {max}")]
    TooLong {
        /// Which part.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

/// One message of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchItem<'a> {
    /// The user's flag.
    pub flag: i32,
    /// The body.
    pub body: &'a [u8],
    /// Where the body lies in the batch, for slicing without a copy.
    pub body_range: Range<usize>,
    /// The encoded properties.
    pub properties: &'a [u8],
    /// Where they lie in the batch.
    pub properties_range: Range<usize>,
}

/// Iterates over a batch's messages. Stops after an error.
#[derive(Debug, Clone)]
pub struct BatchItems<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BatchItems<'a> {
    /// Starts at the first byte of the body.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn item(&self) -> Result<(BatchItem<'a>, usize), BatchError> {
        let at = self.at;
        let total = length(self.bytes, at, 4, at, "total")?;
        if total < ITEM_BYTES_MIN {
            return Err(BatchError::Length { at, what: "total" });
        }
        let end = at.checked_add(total).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(BatchError::Short { at })?;
        let item = &self.bytes[..end];
        let flag = i32::from_be_bytes([item[at + 12], item[at + 13], item[at + 14], item[at + 15]]);
        let body_range = part(item, at + BODY_AT - 4, 4, at, "body")?;
        let properties_range = part(item, body_range.end, 2, at, "properties")?;
        if properties_range.end != end {
            return Err(BatchError::Length { at, what: "total" });
        }
        let body = &item[body_range.clone()];
        let properties = &item[properties_range.clone()];
        Ok((BatchItem { flag, body, body_range, properties, properties_range }, end))
    }
}

impl<'a> Iterator for BatchItems<'a> {
    type Item = Result<BatchItem<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        match self.item() {
            Ok((item, end)) => {
                self.at = end;
                Some(Ok(item))
            }
            Err(error) => {
                self.at = self.bytes.len();
                Some(Err(error))
            }
        }
    }
}

impl std::iter::FusedIterator for BatchItems<'_> {}

/// A length of `width` bytes at `from`, signed as Java reads it, of the item at `at`.
fn length(
    bytes: &[u8],
    from: usize,
    width: usize,
    at: usize,
    what: &'static str,
) -> Result<usize, BatchError> {
    let field = bytes.get(from..from + width).ok_or(BatchError::Short { at })?;
    if field[0] & 0x80 != 0 {
        return Err(BatchError::Length { at, what });
    }
    Ok(field.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
}

fn part(
    item: &[u8],
    from: usize,
    width: usize,
    at: usize,
    what: &'static str,
) -> Result<Range<usize>, BatchError> {
    let length = length(item, from, width, at, what)?;
    let start = from + width;
    let end = start.checked_add(length).filter(|end| *end <= item.len());
    Ok(start..end.ok_or(BatchError::Length { at, what })?)
}

/// Appends one message to a batch, or nothing if a part is too long.
pub fn append(out: &mut BytesMut, flag: i32, body: &[u8], properties: &[u8]) -> Result<(), BatchError> {
    let max = PROPERTIES_BYTES_MAX;
    if properties.len() > max {
        return Err(BatchError::TooLong { what: "properties", bytes: properties.len(), max });
    }
    let max = crate::limits::FRAME_BYTES_MAX;
    if body.len() > max {
        return Err(BatchError::TooLong { what: "body", bytes: body.len(), max });
    }
    let total = ITEM_BYTES_MIN + body.len() + properties.len();
    out.reserve(total);
    out.put_u32(total as u32);
    out.put_bytes(0, 8);
    out.put_i32(flag);
    out.put_u32(body.len() as u32);
    out.put_slice(body);
    out.put_u16(properties.len() as u16);
    out.put_slice(properties);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bytes_are_rocketmqs() {
        let mut out = BytesMut::new();
        append(&mut out, 7, b"hi", b"K\x01v\x02").expect("short enough");
        let expected = b"\0\0\0\x1c\0\0\0\0\0\0\0\0\0\0\0\x07\0\0\0\x02hi\0\x04K\x01v\x02";
        assert_eq!(&out[..], expected);
    }

    #[test]
    fn an_item_that_says_more_than_there_is_is_refused() {
        let mut out = BytesMut::new();
        append(&mut out, 0, b"body", b"").expect("short enough");
        for cut in 1..out.len() {
            let items: Vec<_> = BatchItems::new(&out[..cut]).collect();
            assert_eq!(items, [Err(BatchError::Short { at: 0 })], "cut to {cut}");
        }
        out[16] = 0x80;
        let error = BatchItems::new(&out).next().expect("one item").expect_err("a negative length");
        assert_eq!(error, BatchError::Length { at: 0, what: "body" });
    }

    proptest! {
        #[test]
        fn what_is_appended_is_read_back(
            messages in proptest::collection::vec((any::<i32>(), any::<Vec<u8>>(), any::<Vec<u8>>()), 0..9),
        ) {
            let mut out = BytesMut::new();
            for (flag, body, properties) in &messages {
                append(&mut out, *flag, body, properties).expect("short enough");
            }
            let items: Vec<_> = BatchItems::new(&out).collect::<Result<_, _>>().expect("well-formed");
            prop_assert_eq!(items.len(), messages.len());
            for (item, (flag, body, properties)) in items.iter().zip(&messages) {
                prop_assert_eq!(item.flag, *flag);
                prop_assert_eq!(item.body, &body[..]);
                prop_assert_eq!(item.properties, &properties[..]);
                prop_assert_eq!(&out[item.body_range.clone()], &body[..]);
                prop_assert_eq!(&out[item.properties_range.clone()], &properties[..]);
            }
        }

        #[test]
        fn arbitrary_bytes_are_read_without_panic(bytes: Vec<u8>) {
            prop_assert!(BatchItems::new(&bytes).count() <= bytes.len());
        }
    }
}
