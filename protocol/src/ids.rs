//! Message ids: the offset id a server gives, the unique id a client makes.
//!
//! | id | bytes, written as upper-case hex |
//! |---|---|
//! | offset id | store host's address (4 or 16), port (4), position in the commit log (8) |
//! | unique id | client's address (4 or 16), process id (2), tag of the process (4), ms since the month's start (4), counter (2) |

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

const HEX: &[u8; 16] = b"0123456789ABCDEF";
/// Characters of an offset id with an IPv4 store host.
pub const OFFSET_ID_V4_CHARS: usize = 32;
/// Characters of an offset id with an IPv6 store host.
pub const OFFSET_ID_V6_CHARS: usize = 56;

/// A text that is no offset message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no offset message id: expected 32 or 56 hex digits: address, port, position")]
pub struct MessageIdError;

/// Where a message is: clients ask `host` for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OffsetMessageId {
    /// The advertised address of the server that stored it.
    pub host: SocketAddr,
    /// Its position in the commit log.
    pub position: u64,
}

impl OffsetMessageId {
    /// Its text, on the stack.
    pub(crate) fn hex(&self) -> Hex {
        let mut id = Hex::new();
        id.put_ip(self.host.ip());
        id.put(&u32::from(self.host.port()).to_be_bytes());
        id.put(&self.position.to_be_bytes());
        id
    }
}

impl fmt::Display for OffsetMessageId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.hex().as_str())
    }
}

impl FromStr for OffsetMessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        let digits = text.as_bytes();
        let (ip, rest) = match digits.len() {
            OFFSET_ID_V4_CHARS => (IpAddr::V4(Ipv4Addr::from(unhex::<4>(&digits[..8])?)), &digits[8..]),
            OFFSET_ID_V6_CHARS => (IpAddr::V6(Ipv6Addr::from(unhex::<16>(&digits[..32])?)), &digits[32..]),
            _ => return Err(MessageIdError),
        };
        let port = u32::from_be_bytes(unhex(&rest[..8])?);
        let port = u16::try_from(port).map_err(|_| MessageIdError)?;
        let position = u64::from_be_bytes(unhex(&rest[8..])?);
        Ok(Self { host: SocketAddr::new(ip, port), position })
    }
}

/// The unchanging part of the unique ids one process makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UniqueIds {
    ip: IpAddr,
    process_id: u16,
    tag: u32,
}

impl UniqueIds {
    /// Ids of the process `process_id` at `ip`; `tag` sets apart processes where those agree.
    pub fn new(ip: IpAddr, process_id: u32, tag: u32) -> Self {
        // Java keeps the low 16 bits too.
        Self { ip, process_id: process_id as u16, tag }
    }

    /// The id of one message. Ids differ while no two share millisecond and counter.
    pub fn id(&self, now_ms: u64, counter: u16) -> String {
        let since_month = now_ms - month_start_ms(now_ms);
        let mut id = Hex::new();
        id.put_ip(self.ip);
        id.put(&self.process_id.to_be_bytes());
        id.put(&self.tag.to_be_bytes());
        // A month has fewer than 2^32 ms.
        id.put(&(since_month as u32).to_be_bytes());
        id.put(&counter.to_be_bytes());
        id.as_str().to_owned()
    }
}

/// The first millisecond, UTC, of the month `now_ms` is in.
pub fn month_start_ms(now_ms: u64) -> u64 {
    const DAY_MS: u64 = 86_400_000;
    let days = now_ms / DAY_MS;
    (days + 1 - day_of_month(days)) * DAY_MS
}

/// The day of the month, from 1, of a day counted from 1970-01-01. Years are taken to start in
/// March, so that the leap day is the last one and months repeat as 153 days in five.
fn day_of_month(days: u64) -> u64 {
    const DAYS_FROM_0000_03_01: u64 = 719_468;
    const DAYS_PER_400_YEARS: u64 = 146_097;
    let day_of_era = (days + DAYS_FROM_0000_03_01) % DAYS_PER_400_YEARS;
    let year = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    day_of_year - (153 * month + 2) / 5 + 1
}

/// Hex digits on the stack, enough for the longest id.
pub(crate) struct Hex {
    digits: [u8; OFFSET_ID_V6_CHARS],
    used: usize,
}

impl Hex {
    fn new() -> Self {
        Self { digits: [b'0'; OFFSET_ID_V6_CHARS], used: 0 }
    }

    fn put(&mut self, bytes: &[u8]) {
        let free = self.digits.get_mut(self.used..).unwrap_or_default();
        for (pair, byte) in free.chunks_exact_mut(2).zip(bytes) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
            self.used += 2;
        }
    }

    fn put_ip(&mut self, ip: IpAddr) {
        match ip.to_canonical() {
            IpAddr::V4(ip) => self.put(&ip.octets()),
            IpAddr::V6(ip) => self.put(&ip.octets()),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.digits[..self.used]).unwrap_or_default()
    }
}

fn unhex<const N: usize>(digits: &[u8]) -> Result<[u8; N], MessageIdError> {
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Ok(bytes)
}

fn nibble(digit: u8) -> Result<u8, MessageIdError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(MessageIdError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_offset_id_is_address_port_position() {
        let id = OffsetMessageId { host: "192.168.0.1:10911".parse().expect("address"), position: 0x1234 };
        assert_eq!(id.to_string(), "C0A8000100002A9F0000000000001234");
        assert_eq!("c0a8000100002a9f0000000000001234".parse(), Ok(id));
    }

    #[test]
    fn foreign_texts_are_no_offset_id() {
        for text in ["", "C0A80001", "G0A8000100002A9F0000000000001234", "C0A8000100012A9F0000000000001234"] {
            assert_eq!(text.parse::<OffsetMessageId>(), Err(MessageIdError), "{text}");
        }
        let odd = format!("é{}", "0".repeat(30));
        assert_eq!(odd.parse::<OffsetMessageId>(), Err(MessageIdError));
    }

    #[test]
    fn a_unique_id_has_javas_shape() {
        let ids = UniqueIds::new("127.0.0.1".parse().expect("address"), 0x1_2345, 0xAABB_CCDD);
        // 2024-02-29T00:00:01.000Z: 28 days and a second into the month.
        let id = ids.id(1_709_164_801_000, 7);
        assert_eq!(id, format!("7F0000012345AABBCCDD{:08X}0007", 28u64 * 86_400_000 + 1_000));
        assert_eq!(id.len(), 32);
        let v6 = UniqueIds::new("::1".parse().expect("address"), 1, 2);
        assert_eq!(v6.id(0, 0).len(), 56);
    }

    #[test]
    fn months_start_on_their_first_day() {
        assert_eq!(month_start_ms(0), 0);
        assert_eq!(month_start_ms(1_709_251_199_999), 1_706_745_600_000); // last ms of February 2024
        assert_eq!(month_start_ms(1_709_251_200_000), 1_709_251_200_000); // first of March
    }

    proptest! {
        #[test]
        fn offset_ids_are_read_back(ip: IpAddr, port: u16, position: u64) {
            let id = OffsetMessageId { host: SocketAddr::new(ip.to_canonical(), port), position };
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn arbitrary_texts_are_read_without_panic(text: String) {
            let _ = text.parse::<OffsetMessageId>();
        }
    }
}
