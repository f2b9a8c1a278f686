//! A connection's two buffers, and answers read no further than needed.
//!
//! Invariant (wire.I1): a length is compared with the frame limit before bytes are waited for.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::{Buf, BytesMut};
use folio_protocol::limits::FRAME_BYTES_MAX;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};

/// How long a connection may take: a lost host must not hold a load up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Room made before a read at first, and at most: it doubles while reads fill it. A thousand connections with one
/// answer each need little.
const READ_BYTES_MIN: usize = 2 * 1024;
const READ_BYTES_MAX: usize = 256 * 1024;

/// A connection that is read and written by one task.
pub(super) struct Wire {
    socket: TcpStream,
    /// What arrived and is not yet taken.
    pub(super) inbox: BytesMut,
    /// What shall be written.
    pub(super) outbox: BytesMut,
    /// Room made before a read.
    room: usize,
}

impl Wire {
    pub(super) async fn connect(address: &str) -> Result<Self> {
        let socket = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let socket = socket.with_context(|| format!("{address} does not answer"))?;
        let socket = socket.with_context(|| format!("cannot connect to {address}"))?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, inbox: BytesMut::new(), outbox: BytesMut::new(), room: READ_BYTES_MIN })
    }

    /// Writes what the socket takes now.
    pub(super) fn write(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() {
            match self.socket.try_write(&self.outbox) {
                Ok(written) => self.outbox.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what is there, at most one buffer of it.
    pub(super) fn read(&mut self) -> io::Result<()> {
        if self.inbox.capacity() - self.inbox.len() < self.room / 4 {
            self.inbox.reserve(self.room);
        }
        match self.socket.try_read_buf(&mut self.inbox) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")),
            Ok(_) if self.inbox.len() < self.inbox.capacity() => Ok(()),
            Ok(_) => {
                self.room = (self.room * 2).min(READ_BYTES_MAX);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Waits until there is something to read, or room for what is to be written, or it is time.
    pub(super) async fn wait(&self, until: Instant) -> io::Result<()> {
        let interest =
            if self.outbox.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        match timeout_at(until.into(), self.socket.ready(interest)).await {
            Ok(ready) => ready.map(|_| ()),
            Err(_) => Ok(()),
        }
    }
}

/// An answer's number, its code and all its bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer<'a> {
    pub(super) opaque: i32,
    pub(super) code: i32,
    pub(super) frame: &'a [u8],
}

/// The first answer in `bytes`, or none if it has not come whole.
pub(super) fn first_answer(bytes: &[u8]) -> Result<Option<Answer<'_>>> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if !(4..=FRAME_BYTES_MAX - 4).contains(&length) {
        bail!(
            "it sent a frame of length {length}, expected 4 to {}: does it speak RocketMQ's protocol?",
            FRAME_BYTES_MAX - 4
        );
    }
    let Some(rest) = rest.get(..length) else { return Ok(None) };
    let [kind, word @ ..] = rest.first_chunk::<4>().copied().unwrap_or_default();
    let header_bytes = u32::from_be_bytes([0, word[0], word[1], word[2]]) as usize;
    let header = rest.get(4..4 + header_bytes).context("it sent a header longer than its frame")?;
    let (code, opaque) = match kind {
        0 => (json_number(header, b"\"code\""), json_number(header, b"\"opaque\"")),
        1 => binary_numbers(header),
        other => bail!("it sent a header of unknown serialization {other}"),
    };
    let (code, opaque) = code.zip(opaque).context("it sent a header without code and opaque")?;
    Ok(Some(Answer { opaque, code, frame: &bytes[..4 + length] }))
}

/// The number after a key. Within a JSON text quotes are escaped and a field's value is a text, so a
/// quoted key before a colon and a bare number is the key itself.
fn json_number(header: &[u8], key: &[u8]) -> Option<i32> {
    let colons = header.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at);
    colons.filter(|at| header[..*at].trim_ascii_end().ends_with(key)).find_map(|at| {
        let value = header[at + 1..].trim_ascii_start();
        let digits = value.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'-')?;
        std::str::from_utf8(&value[..digits]).ok()?.parse().ok()
    })
}

fn binary_numbers(header: &[u8]) -> (Option<i32>, Option<i32>) {
    let code = header.first_chunk::<2>().map(|code| i32::from(i16::from_be_bytes(*code)));
    let opaque = header.get(5..).and_then(|rest| rest.first_chunk::<4>());
    (code, opaque.map(|opaque| i32::from_be_bytes(*opaque)))
}

#[cfg(test)]
mod tests {
    use folio_protocol::code::ResponseCode;
    use folio_protocol::frame::{Frame, Serialization};

    use super::*;

    fn encoded(frame: &Frame) -> BytesMut {
        let mut out = BytesMut::new();
        frame.encode(&mut out).unwrap();
        out
    }

    #[test]
    fn number_and_code_are_those_the_codec_reads() {
        for serialization in [Serialization::Json, Serialization::Rocketmq] {
            let mut frame = Frame::response(1_000_000_007, serialization, ResponseCode::SystemBusy)
                .with_remark(r#"a "code":99 and "opaque":3 in a text"#)
                .with_body(&b"\"code\":5"[..]);
            frame.ext.insert("code", "98");
            let bytes = encoded(&frame);
            let answer = first_answer(&bytes).unwrap().unwrap();
            assert_eq!((answer.opaque, answer.code), (1_000_000_007, 2));
            assert_eq!(answer.frame.len(), bytes.len());
        }
    }

    #[test]
    fn keys_in_any_order_with_blanks_are_read() {
        let header = br#"{"opaque" : 12 , "flag":1, "extFields":{"code":"7"}, "code": -3}"#;
        assert_eq!(json_number(header, b"\"code\""), Some(-3));
        assert_eq!(json_number(header, b"\"opaque\""), Some(12));
        assert_eq!(json_number(header, b"\"version\""), None);
    }

    #[test]
    fn a_part_of_an_answer_is_waited_for_and_nonsense_is_refused() {
        let bytes = encoded(&Frame::response(1, Serialization::Json, ResponseCode::Success));
        for end in 0..bytes.len() {
            assert_eq!(first_answer(&bytes[..end]).unwrap(), None);
        }
        assert!(first_answer(b"HTTP/1.1 400 Bad Request").unwrap_err().to_string().contains("RocketMQ"));
        assert!(first_answer(&[0, 0, 0, 4, 0, 0, 0, 9]).is_err());
        assert!(first_answer(&[0, 0, 0, 4, 0, 0, 0, 0]).is_err());
        assert!(first_answer(&[0, 0, 0, 4, 7, 0, 0, 0]).is_err());
        assert!(first_answer(&[0, 0, 0, 0]).is_err());
    }
}
