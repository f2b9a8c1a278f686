//! etcd: `KV.Put` over gRPC, one HTTP/2 stream a message.
//!
//! Of HTTP/2 only what this needs: request headers are plain literals, a connection's send window is kept,
//! and of an answer it matters only whether a message came: gRPC sends an error without one.
//!
//! | bytes | what a frame is |
//! |---|---|
//! | 3 | length of the payload |
//! | 1 | type |
//! | 1 | flags |
//! | 4 | stream |

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::net::TcpStream;

use anyhow::{Result, bail, ensure};

use crate::peer::Peer;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
const HEAD_BYTES: usize = 9;
/// HTTP/2's limits before anybody changes them.
const FRAME_BYTES_MAX: usize = 16_384;
const WINDOW: i64 = 65_535;

/// One connection.
pub(super) struct Etcd {
    number: usize,
    next_stream: u32,
    /// Slot of each open stream, and whether its answer came.
    open: HashMap<u32, (u32, bool)>,
    /// Requests that wait for the connection's window.
    waiting: VecDeque<(u32, Vec<u8>)>,
    window: i64,
}

impl Etcd {
    pub(super) fn new(number: usize) -> Self {
        Self { number, next_stream: 1, open: HashMap::new(), waiting: VecDeque::new(), window: WINDOW }
    }

    fn pump(&mut self, out: &mut Vec<u8>) {
        while let Some((_, message)) = self.waiting.front()
            && message.len() as i64 <= self.window
        {
            let Some((slot, message)) = self.waiting.pop_front() else { return };
            self.window -= message.len() as i64;
            let stream = self.next_stream;
            self.next_stream += 2;
            frame(out, HEADERS, END_HEADERS, stream, &request_headers());
            let parts = message.len().div_ceil(FRAME_BYTES_MAX);
            for (part, bytes) in message.chunks(FRAME_BYTES_MAX).enumerate() {
                let flags = if part + 1 == parts { END_STREAM } else { 0 };
                frame(out, DATA, flags, stream, bytes);
            }
            self.open.insert(stream, (slot, false));
        }
    }

    fn on_frame(&mut self, frame_: &Received<'_>, out: &mut Vec<u8>, acked: &mut Vec<u32>) -> Result<()> {
        match frame_.kind {
            DATA => {
                if let Some((_, answered)) = self.open.get_mut(&frame_.stream) {
                    *answered |= !frame_.payload.is_empty();
                }
            }
            SETTINGS if frame_.flags & ACK == 0 => frame(out, SETTINGS, ACK, 0, &[]),
            PING if frame_.flags & ACK == 0 => frame(out, PING, ACK, 0, frame_.payload),
            WINDOW_UPDATE if frame_.stream == 0 => {
                let more = frame_.payload.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
                self.window += i64::from(more & 0x7FFF_FFFF);
            }
            RESET => bail!("etcd reset a request"),
            GO_AWAY => bail!("etcd says goodbye: {}", String::from_utf8_lossy(frame_.payload)),
            _ => {}
        }
        if matches!(frame_.kind, DATA | HEADERS)
            && frame_.flags & END_STREAM != 0
            && let Some((slot, answered)) = self.open.remove(&frame_.stream)
        {
            ensure!(answered, "etcd refused a put");
            acked.push(slot);
        }
        Ok(())
    }
}

impl Peer for Etcd {
    fn open(&mut self, socket: &mut TcpStream) -> Result<()> {
        let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        frame(&mut out, SETTINGS, 0, 0, &[]);
        // Answers are a few bytes each: room for all of them at once.
        frame(&mut out, WINDOW_UPDATE, 0, 0, &(0x7FFF_FFFF_u32 - WINDOW as u32).to_be_bytes());
        Ok(socket.write_all(&out)?)
    }

    fn put(&mut self, slot: u32, body: &[u8], out: &mut Vec<u8>) {
        // A key of its own for each message, as a log would have.
        let number = u64::from(self.next_stream) + 2 * self.waiting.len() as u64;
        let key = format!("{}-{}/{number:016x}", std::process::id(), self.number);
        let mut put = Vec::with_capacity(body.len() + 64);
        put.push(0x0A);
        varint(&mut put, key.len());
        put.extend_from_slice(key.as_bytes());
        put.push(0x12);
        varint(&mut put, body.len());
        put.extend_from_slice(body);
        let message = [&[0][..], &(put.len() as u32).to_be_bytes(), &put].concat();
        self.waiting.push_back((slot, message));
        self.pump(out);
    }

    fn take(&mut self, input: &[u8], out: &mut Vec<u8>, acked: &mut Vec<u32>) -> Result<usize> {
        let mut taken = 0;
        while let Some(frame) = first_frame(&input[taken..])? {
            taken += HEAD_BYTES + frame.payload.len();
            self.on_frame(&frame, out, acked)?;
        }
        self.pump(out);
        Ok(taken)
    }
}

struct Received<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

fn first_frame(input: &[u8]) -> Result<Option<Received<'_>>> {
    let Some(head) = input.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let size = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    ensure!(size <= FRAME_BYTES_MAX, "a frame of {size} bytes: is it HTTP/2?");
    let Some(payload) = input.get(HEAD_BYTES..HEAD_BYTES + size) else { return Ok(None) };
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7FFF_FFFF;
    Ok(Some(Received { kind: head[3], flags: head[4], stream, payload }))
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// HPACK without a table of our own: `:method` POST and `:scheme` http by their static numbers, the others
/// as literals that are not indexed.
fn request_headers() -> Vec<u8> {
    let mut out = vec![0x83, 0x86];
    let literal = |out: &mut Vec<u8>, name: &[u8], value: &str| {
        out.extend_from_slice(name);
        out.push(value.len() as u8);
        out.extend_from_slice(value.as_bytes());
    };
    literal(&mut out, &[0x04], "/etcdserverpb.KV/Put");
    literal(&mut out, &[0x01], "127.0.0.1");
    // Static number 31, content-type, takes a prefix of four bits and 16 more.
    literal(&mut out, &[0x0F, 0x10], "application/grpc");
    literal(&mut out, b"\x00\x02te", "trailers");
    out
}

fn varint(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push((number & 0x7F) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_counts_when_its_message_came_and_not_before() {
        let mut etcd = Etcd::new(0);
        let (mut out, mut acked) = (Vec::new(), Vec::new());
        etcd.put(9, b"body", &mut out);
        let mut input = Vec::new();
        frame(&mut input, HEADERS, END_HEADERS, 1, &[0x88]);
        frame(&mut input, DATA, 0, 1, &[0, 0, 0, 0, 0]);
        assert_eq!(etcd.take(&input, &mut out, &mut acked).unwrap(), input.len());
        assert!(acked.is_empty());
        let mut trailers = Vec::new();
        frame(&mut trailers, HEADERS, END_HEADERS | END_STREAM, 1, &[]);
        etcd.take(&trailers, &mut out, &mut acked).unwrap();
        assert_eq!(acked, [9]);
        etcd.put(9, b"body", &mut out);
        let mut refusal = Vec::new();
        frame(&mut refusal, HEADERS, END_HEADERS | END_STREAM, 3, &[]);
        assert!(etcd.take(&refusal, &mut out, &mut acked).is_err());
    }

    #[test]
    fn what_the_window_has_no_room_for_waits() {
        let mut etcd = Etcd::new(0);
        let (mut out, mut acked) = (Vec::new(), Vec::new());
        for slot in 0..5 {
            etcd.put(slot, &[b'x'; 16_384], &mut out);
        }
        assert_eq!((etcd.open.len(), etcd.waiting.len()), (3, 2));
        let mut update = Vec::new();
        frame(&mut update, WINDOW_UPDATE, 0, 0, &100_000_u32.to_be_bytes());
        etcd.take(&update, &mut out, &mut acked).unwrap();
        assert_eq!((etcd.open.len(), etcd.waiting.len()), (5, 0));
    }
}
