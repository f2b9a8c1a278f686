//! Reads messages as a broker stores and a PULL returns them.
//!
//! Written apart from `folio_protocol::message` on purpose: the checker must not share the code
//! whose bytes it judges. Layout (big-endian), IPv4 hosts unless the flag says otherwise:
//!
//! | field | at |
//! |---|---|
//! | total size, magic, body crc, queue id, flag | 0, 4, 8, 12, 16 |
//! | queue offset, physical offset, sys flag | 20, 28, 36 |
//! | born time, born host, store time, store host | 40, 48, +8, ... |
//! | reconsume times, prepared offset, body, topic, properties | after the hosts |

use anyhow::{Context, Result, bail, ensure};

const MAGIC_V1: u32 = 0xDAA3_20A7;
const MAGIC_V2: u32 = 0xDAA3_20AB;
const BORN_HOST_V6: i32 = 0x10;
const STORE_HOST_V6: i32 = 0x20;

/// One message out of a PULL's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Queue number.
    pub queue: u32,
    /// Offset in the queue.
    pub offset: u64,
    /// Position in the commit log.
    pub position: u64,
    /// Bytes it takes there.
    pub size: u64,
    /// When the leader stored it, in ms.
    pub stored_ms: i64,
    /// How often it was sent back by consumers.
    pub times: u32,
    /// Topic.
    pub topic: String,
    /// Body as sent.
    pub body: Vec<u8>,
    /// Names and values, as they are stored.
    pub properties: String,
}

impl StoredMessage {
    /// The value of a property.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        let mut pairs = self.properties.rsplit('\u{2}').filter_map(|pair| pair.split_once('\u{1}'));
        pairs.find(|(known, value)| *known == name && !value.is_empty()).map(|(_, value)| value)
    }
}

/// Splits a PULL's body into its messages.
///
/// # Errors
/// When a length runs over the end, a magic is unknown or a field is out of its range.
pub fn parse_all(mut bytes: &[u8]) -> Result<Vec<StoredMessage>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let total = Reader { bytes, at: 0 }.u32()? as usize;
        let frame = bytes.get(..total).with_context(|| {
            format!("a message says it has {total} bytes, the body has {} left", bytes.len())
        })?;
        found.push(parse(frame)?);
        bytes = &bytes[total..];
    }
    Ok(found)
}

fn parse(frame: &[u8]) -> Result<StoredMessage> {
    let mut reader = Reader { bytes: frame, at: 4 };
    let magic = reader.u32()?;
    ensure!(magic == MAGIC_V1 || magic == MAGIC_V2, "message magic is {magic:#010x}");
    let _body_crc = reader.u32()?;
    let queue = reader.u32()?;
    let _flag = reader.u32()?;
    let offset = reader.u64()?;
    let position = reader.u64()?;
    let sys_flag = reader.u32()? as i32;
    reader.skip(8)?;
    reader.skip(if sys_flag & BORN_HOST_V6 == 0 { 8 } else { 20 })?;
    let stored_ms = reader.u64()? as i64;
    reader.skip(if sys_flag & STORE_HOST_V6 == 0 { 8 } else { 20 })?;
    let times = reader.u32()?;
    reader.skip(8)?;
    let body_len = reader.u32()? as usize;
    let body = reader.take(body_len)?.to_vec();
    let topic_len = if magic == MAGIC_V1 { usize::from(reader.u8()?) } else { usize::from(reader.u16()?) };
    let topic = String::from_utf8(reader.take(topic_len)?.to_vec()).context("topic is not UTF-8")?;
    let properties = usize::from(reader.u16()?);
    let properties =
        String::from_utf8(reader.take(properties)?.to_vec()).context("properties are not UTF-8")?;
    if reader.at != frame.len() {
        bail!("a message of {} bytes has {} after its last field", frame.len(), frame.len() - reader.at);
    }
    let size = frame.len() as u64;
    Ok(StoredMessage { queue, offset, position, size, stored_ms, times, topic, body, properties })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).context("length overflows")?;
        let taken = self
            .bytes
            .get(self.at..end)
            .with_context(|| format!("a message ends at byte {}, a field wants {end}", self.bytes.len()))?;
        self.at = end;
        Ok(taken)
    }

    fn skip(&mut self, count: usize) -> Result<()> {
        self.take(count).map(drop)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 4];
        frame.extend(MAGIC_V1.to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(3_u32.to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(7_u64.to_be_bytes());
        frame.extend(4096_u64.to_be_bytes());
        frame.extend([0; 4 + 8 + 8]);
        frame.extend(99_u64.to_be_bytes());
        frame.extend([0; 8]);
        frame.extend(2_u32.to_be_bytes());
        frame.extend([0; 8]);
        frame.extend((body.len() as u32).to_be_bytes());
        frame.extend(body);
        frame.push(topic.len() as u8);
        frame.extend(topic.as_bytes());
        frame.extend([0, 10]);
        frame.extend(b"k\x01v\x02x\x01\x02k\x01w");
        let total = frame.len() as u32;
        frame[..4].copy_from_slice(&total.to_be_bytes());
        frame
    }

    #[test]
    fn two_messages_back_to_back_are_both_read() {
        let mut bytes = message("a", b"first");
        bytes.extend(message("bb", b""));
        let found = parse_all(&bytes).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].body, b"first");
        assert_eq!((found[0].queue, found[0].offset, found[0].position), (3, 7, 4096));
        assert_eq!((found[0].stored_ms, found[0].times), (99, 2));
        assert_eq!((found[0].property("k"), found[0].property("v")), (Some("w"), None));
        assert_eq!(found[1].topic, "bb");
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, damage in 0_usize..100, value: u8) {
            let _ = parse_all(&bytes);
            let mut message = message("topic", b"body");
            let at = damage % message.len();
            message[at] = value;
            let _ = parse_all(&message);
        }
    }

    #[test]
    fn a_message_cut_anywhere_is_an_error_and_no_panic() {
        let whole = message("topic", b"body");
        for len in 1..whole.len() {
            assert!(parse_all(&whole[..len]).is_err(), "cut at {len}");
        }
        let mut wrong = whole.clone();
        wrong[4] = 0;
        assert!(parse_all(&wrong).is_err());
    }
}
