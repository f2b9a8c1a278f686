//! Encoding a new message.

use std::net::{IpAddr, SocketAddr};

use bytes::{BufMut, Bytes, BytesMut};

use super::MessageView;
use super::layout::{HOST_V4_BYTES, HOST_V6_BYTES, MAGIC_V1, MAGIC_V2, MESSAGE_BYTES_MIN, MessageError};
use crate::Name;
use crate::flags::sys_flag;
use crate::limits::{MESSAGE_BYTES_MAX, PROPERTIES_BYTES_MAX, TOPIC_V1_BYTES_MAX};

/// A message before it is stored. Offsets are stamped later, when its place in the log is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// The topic.
    pub topic: Name,
    /// The queue within the topic.
    pub queue_id: u32,
    /// The user's flag.
    pub flag: i32,
    /// The system flag; its two host bits are set from the addresses.
    pub sys_flag: i32,
    /// When the producer made it, ms.
    pub born_timestamp: i64,
    /// Where the producer is.
    pub born_host: SocketAddr,
    /// When it was stored, ms.
    pub store_timestamp: i64,
    /// The advertised address of the server: clients ask there for a message by its id.
    pub store_host: SocketAddr,
    /// How often it was consumed before.
    pub reconsume_times: i32,
    /// The half message's queue offset, for a committed one.
    pub prepared_transaction_offset: i64,
    /// The body, compressed or not.
    pub body: Bytes,
    /// The encoded properties; see [`crate::properties`].
    pub properties: Bytes,
}

impl NewMessage {
    /// A stored message, to be stored once more: all but its store timestamp. It was parsed from `bytes`, of which body and properties
    /// are slices.
    pub fn copy_of(message: &MessageView<'_>, bytes: &Bytes) -> NewMessage {
        NewMessage {
            topic: message.topic().into(),
            queue_id: message.queue_id(),
            flag: message.flag(),
            sys_flag: message.sys_flag(),
            born_timestamp: message.born_timestamp(),
            born_host: message.born_host(),
            store_timestamp: 0,
            store_host: message.store_host(),
            reconsume_times: message.reconsume_times(),
            prepared_transaction_offset: message.prepared_transaction_offset(),
            body: bytes.slice_ref(message.body()),
            properties: bytes.slice_ref(message.properties()),
        }
    }

    /// Bytes the message takes.
    pub fn encoded_len(&self) -> usize {
        MESSAGE_BYTES_MIN
            + host_extra(self.born_host)
            + host_extra(self.store_host)
            + usize::from(self.is_v2())
            + self.topic.len()
            + self.body.len()
            + self.properties.len()
    }

    /// Whether every part can be encoded.
    pub fn check(&self) -> Result<(), MessageError> {
        at_most("topic", self.topic.len(), i16::MAX as usize)?;
        at_most("properties", self.properties.len(), PROPERTIES_BYTES_MAX)?;
        at_most("whole", self.encoded_len(), MESSAGE_BYTES_MAX)
    }

    /// Appends the message to `out`, or nothing if a part is too long.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), MessageError> {
        self.check()?;
        let total = self.encoded_len();
        out.reserve(total);
        out.put_u32(total as u32);
        out.put_u32(if self.is_v2() { MAGIC_V2 } else { MAGIC_V1 });
        out.put_u32(super::body_crc(&self.body));
        out.put_u32(self.queue_id);
        out.put_i32(self.flag);
        out.put_bytes(0, 16);
        out.put_i32(self.sys_flag_with_hosts());
        out.put_i64(self.born_timestamp);
        put_host(self.born_host, out);
        out.put_i64(self.store_timestamp);
        put_host(self.store_host, out);
        out.put_i32(self.reconsume_times);
        out.put_i64(self.prepared_transaction_offset);
        out.put_u32(self.body.len() as u32);
        out.put_slice(&self.body);
        if self.is_v2() {
            out.put_u16(self.topic.len() as u16);
        } else {
            out.put_u8(self.topic.len() as u8);
        }
        out.put_slice(self.topic.as_bytes());
        out.put_u16(self.properties.len() as u16);
        out.put_slice(&self.properties);
        Ok(())
    }

    fn is_v2(&self) -> bool {
        self.topic.len() > TOPIC_V1_BYTES_MAX
    }

    fn sys_flag_with_hosts(&self) -> i32 {
        let mut flag = self.sys_flag & !(sys_flag::BORN_HOST_V6 | sys_flag::STORE_HOST_V6);
        if host_extra(self.born_host) > 0 {
            flag |= sys_flag::BORN_HOST_V6;
        }
        if host_extra(self.store_host) > 0 {
            flag |= sys_flag::STORE_HOST_V6;
        }
        flag
    }
}

fn at_most(what: &'static str, bytes: usize, max: usize) -> Result<(), MessageError> {
    if bytes > max { Err(MessageError::TooLong { what, bytes, max }) } else { Ok(()) }
}

/// Bytes a host takes beyond an IPv4 one. A v4 address mapped into v6, as a dual-stack listener
/// reports it, is a v4 address.
fn host_extra(host: SocketAddr) -> usize {
    if host.ip().to_canonical().is_ipv4() { 0 } else { HOST_V6_BYTES - HOST_V4_BYTES }
}

pub(crate) fn put_host(host: SocketAddr, out: &mut BytesMut) {
    match host.ip().to_canonical() {
        IpAddr::V4(ip) => out.put_slice(&ip.octets()),
        IpAddr::V6(ip) => out.put_slice(&ip.octets()),
    }
    out.put_u32(u32::from(host.port()));
}
