//! Whose request another node forwards, and of a send what its connection knows of it.
//!
//! | part | bytes | meaning |
//! |---|---|---|
//! | client | 7 or 19 | the client's end, see `broker/src/client_address.rs` |
//! | is an operator's | 1 | 0 or 1: what this node knows of the connection (`admin.I2`) |
//! | is a send | 1 | 0, or 1 and what follows |
//! | age, of the connection | 4 + 8 | milliseconds since the send came, and since its connection was made |
//! | number | 8 | which of its connection's sends it is |
//! | doubts | 1 | whether an earlier one may have been given up |

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use folio_broker::client_address::{put_client, take_client};
use folio_raft::proposal::Attempt;
use tokio::time::Instant;

/// Who sent a request, and how it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) remote: SocketAddr,
    /// Whether it is an operator's.
    pub(crate) is_operator: bool,
    /// Of a send that is answered.
    pub(crate) attempt: Option<Attempt>,
}

impl Origin {
    /// Ages are those of this moment.
    pub(crate) fn put(&self, out: &mut BytesMut) {
        put_client(out, self.remote);
        out.put_u8(self.is_operator.into());
        let Some(attempt) = self.attempt else { return out.put_u8(0) };
        out.put_u8(1);
        out.put_u32(u32::try_from(attempt.arrived.elapsed().as_millis()).unwrap_or(u32::MAX));
        out.put_u64(attempt.connected.elapsed().as_millis() as u64);
        out.put_u64(attempt.number);
        out.put_u8(attempt.doubts.into());
    }

    /// `received`: when it came here.
    pub(crate) fn take(bytes: &mut Bytes, received: Instant) -> Option<Origin> {
        let remote = take_client(bytes)?;
        let is_operator = match bytes.try_get_u8().ok()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let attempt = match bytes.try_get_u8().ok()? {
            0 => None,
            _ => {
                let age = Duration::from_millis(bytes.try_get_u32().ok()?.into());
                let connected = Duration::from_millis(bytes.try_get_u64().ok()?);
                Some(Attempt {
                    arrived: received.checked_sub(age)?,
                    connected: received.checked_sub(connected)?,
                    number: bytes.try_get_u64().ok()?,
                    doubts: bytes.try_get_u8().ok()? != 0,
                    here: false,
                })
            }
        };
        Some(Origin { remote, is_operator, attempt })
    }
}
