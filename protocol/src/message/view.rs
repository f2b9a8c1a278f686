//! Reading stored messages in place.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::layout::{
    BODY_CRC_AT, BORN_HOST_AT, BORN_TIMESTAMP_AT, FLAG_AT, HOST_V6_BYTES, Layout, MessageError,
    PHYSICAL_OFFSET_AT, QUEUE_ID_AT, QUEUE_OFFSET_AT, SYS_FLAG_AT,
};
use crate::java;
use crate::properties::{self, TAGS};

/// One stored message, its parts checked once when it was parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageView<'a> {
    bytes: &'a [u8],
    topic: &'a str,
    layout: Layout,
}

impl<'a> MessageView<'a> {
    /// Parses the first message in `bytes`; more may follow it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, MessageError> {
        let layout = Layout::of(bytes)?;
        let topic = std::str::from_utf8(&bytes[layout.topic.0..layout.topic.1]);
        let topic = topic.map_err(|_| MessageError::TopicUtf8)?;
        Ok(Self { bytes: &bytes[..layout.total], topic, layout })
    }

    /// The message's own bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// TOTALSIZE.
    pub fn total_size(&self) -> usize {
        self.layout.total
    }

    /// BODYCRC.
    pub fn body_crc(&self) -> u32 {
        u32::from_be_bytes(self.array(BODY_CRC_AT))
    }

    /// QUEUEID.
    pub fn queue_id(&self) -> u32 {
        u32::from_be_bytes(self.array(QUEUE_ID_AT))
    }

    /// FLAG.
    pub fn flag(&self) -> i32 {
        i32::from_be_bytes(self.array(FLAG_AT))
    }

    /// QUEUEOFFSET.
    pub fn queue_offset(&self) -> u64 {
        u64::from_be_bytes(self.array(QUEUE_OFFSET_AT))
    }

    /// PHYSICALOFFSET.
    pub fn physical_offset(&self) -> u64 {
        u64::from_be_bytes(self.array(PHYSICAL_OFFSET_AT))
    }

    /// SYSFLAG.
    pub fn sys_flag(&self) -> i32 {
        i32::from_be_bytes(self.array(SYS_FLAG_AT))
    }

    /// BORNTIMESTAMP, ms.
    pub fn born_timestamp(&self) -> i64 {
        i64::from_be_bytes(self.array(BORN_TIMESTAMP_AT))
    }

    /// BORNHOST.
    pub fn born_host(&self) -> SocketAddr {
        self.host(BORN_HOST_AT, self.layout.store_timestamp_at)
    }

    /// STORETIMESTAMP, ms.
    pub fn store_timestamp(&self) -> i64 {
        i64::from_be_bytes(self.array(self.layout.store_timestamp_at))
    }

    /// STOREHOST.
    pub fn store_host(&self) -> SocketAddr {
        self.host(self.layout.store_timestamp_at + 8, self.layout.reconsume_times_at)
    }

    /// RECONSUMETIMES.
    pub fn reconsume_times(&self) -> i32 {
        i32::from_be_bytes(self.array(self.layout.reconsume_times_at))
    }

    /// PREPAREDTRANSACTIONOFFSET.
    pub fn prepared_transaction_offset(&self) -> i64 {
        i64::from_be_bytes(self.array(self.layout.reconsume_times_at + 4))
    }

    /// The body as stored.
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[self.layout.body.0..self.layout.body.1]
    }

    /// The topic.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The encoded properties.
    pub fn properties(&self) -> &'a [u8] {
        &self.bytes[self.layout.properties.0..self.layout.properties.1]
    }

    /// One property, found without allocating.
    pub fn property(&self, name: &str) -> Option<&'a str> {
        properties::get(self.properties(), name)
    }

    /// What a consume queue stores for this message: the hash of TAGS, 0 without.
    pub fn tags_code(&self) -> i64 {
        self.property(TAGS).map_or(0, java::tags_code)
    }

    /// Compares the body with BODYCRC.
    pub fn verify_body_crc(&self) -> Result<(), MessageError> {
        let (stored, actual) = (self.body_crc(), super::body_crc(self.body()));
        if stored == actual { Ok(()) } else { Err(MessageError::BodyCrc { stored, actual }) }
    }

    /// A fixed field; `parse` has checked that it is there.
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes.get(at..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or([0; N])
    }

    /// The host between two positions. The port's 32 bits hold 16; a foreign rest is cut.
    fn host(&self, at: usize, field_end: usize) -> SocketAddr {
        let ip = match field_end - at {
            HOST_V6_BYTES.. => IpAddr::V6(Ipv6Addr::from(self.array::<16>(at))),
            _ => IpAddr::V4(Ipv4Addr::from(self.array::<4>(at))),
        };
        let port_at = if ip.is_ipv4() { at + 4 } else { at + 16 };
        SocketAddr::new(ip, u32::from_be_bytes(self.array(port_at)) as u16)
    }
}

/// Iterates over messages back to back: each with its offset in the slice. Stops after an error.
#[derive(Debug, Clone)]
pub struct Messages<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Messages<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<(usize, MessageView<'a>), MessageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        let rest = self.bytes.get(at..).filter(|rest| !rest.is_empty())?;
        match MessageView::parse(rest) {
            Ok(message) => {
                self.at += message.total_size();
                Some(Ok((at, message)))
            }
            Err(error) => {
                self.at = self.bytes.len();
                Some(Err(error))
            }
        }
    }
}

impl std::iter::FusedIterator for Messages<'_> {}
