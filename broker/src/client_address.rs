//! A client's end of a connection, as nodes tell it to each other, big-endian:
//!
//! | part | bytes | meaning |
//! |---|---|---|
//! | family | 1 | 4 or 6 |
//! | address | 4 or 16 | the client's |
//! | port | 2 | the client's |

use std::net::{IpAddr, SocketAddr};

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Writes it behind `out`.
pub fn put_client(out: &mut BytesMut, client: SocketAddr) {
    match client.ip() {
        IpAddr::V4(ip) => {
            out.put_u8(4);
            out.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.put_u8(6);
            out.put_slice(&ip.octets());
        }
    }
    out.put_u16(client.port());
}

/// What [`put_client`] has written.
pub fn take_client(bytes: &mut Bytes) -> Option<SocketAddr> {
    let ip: IpAddr = match bytes.try_get_u8().ok()? {
        4 => bytes.try_get_u32().ok()?.to_be_bytes().into(),
        6 => bytes.try_get_u128().ok()?.to_be_bytes().into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, bytes.try_get_u16().ok()?))
}
