//! RabbitMQ over AMQP 0-9-1: persistent messages to a quorum queue of three, acknowledged by publisher
//! confirms.
//!
//! | bytes | what a frame is |
//! |---|---|
//! | 1 | type: 1 method, 2 content header, 3 content body |
//! | 2 | channel |
//! | 4 | length of the payload |
//! | n | payload; a method's begins with class and method, two bytes each |
//! | 1 | 0xCE |

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, bail, ensure};

use crate::peer::Peer;

const QUEUE: &str = "bench";
const METHOD: u8 = 1;
const CONTENT_HEADER: u8 = 2;
const CONTENT_BODY: u8 = 3;
const FRAME_END: u8 = 0xCE;
const FRAME_BYTES_MAX: usize = 128 << 10;
const HEAD_BYTES: usize = 7;
/// Classes and methods that are waited for.
const START: (u16, u16) = (10, 10);
const TUNE: (u16, u16) = (10, 30);
const OPEN_OK: (u16, u16) = (10, 41);
const CHANNEL_OPEN_OK: (u16, u16) = (20, 11);
const SELECT_OK: (u16, u16) = (85, 11);
const DECLARE_OK: (u16, u16) = (50, 11);
const ACK: (u16, u16) = (60, 80);

/// One connection with one channel.
#[derive(Default)]
pub(super) struct Amqp {
    /// Slots of the messages not yet confirmed, by delivery tag; the first one's tag is `first`.
    waiting: VecDeque<Option<u32>>,
    first: u64,
}

impl Peer for Amqp {
    fn open(&mut self, socket: &mut TcpStream) -> Result<()> {
        self.first = 1;
        socket.write_all(b"AMQP\0\0\x09\x01")?;
        expect(socket, START)?;
        // No client properties; PLAIN with the user every broker has for its own machine.
        let answer = [&[0; 4][..], &short("PLAIN"), &[0, 0, 0, 12], b"\0guest\0guest", &short("en_US")];
        send(socket, 0, (10, 11), &answer.concat())?;
        expect(socket, TUNE)?;
        let tune = [&2047_u16.to_be_bytes()[..], &(FRAME_BYTES_MAX as u32).to_be_bytes(), &[0, 0]];
        send(socket, 0, (10, 31), &tune.concat())?;
        send(socket, 0, (10, 40), &[&short("/")[..], &short(""), &[0]].concat())?;
        expect(socket, OPEN_OK)?;
        send(socket, 1, (20, 10), &short(""))?;
        expect(socket, CHANNEL_OPEN_OK)?;
        send(socket, 1, (85, 10), &[0])?;
        expect(socket, SELECT_OK)?;
        let quorum = [&short("x-queue-type")[..], b"S", &[0, 0, 0, 6], b"quorum"].concat();
        let group = [&short("x-quorum-initial-group-size")[..], b"I", &3_i32.to_be_bytes()].concat();
        let table = [&((quorum.len() + group.len()) as u32).to_be_bytes()[..], &quorum, &group].concat();
        const DURABLE: u8 = 2;
        send(socket, 1, (50, 10), &[&[0, 0][..], &short(QUEUE), &[DURABLE], &table].concat())?;
        expect(socket, DECLARE_OK)
    }

    fn put(&mut self, slot: u32, body: &[u8], out: &mut Vec<u8>) {
        let publish = [&60_u16.to_be_bytes()[..], &40_u16.to_be_bytes(), &[0, 0, 0], &short(QUEUE), &[0]];
        frame(out, METHOD, 1, &publish.concat());
        // The one property is delivery mode 2: persistent.
        let size = (body.len() as u64).to_be_bytes();
        let header = [&60_u16.to_be_bytes()[..], &[0, 0], &size, &0x1000_u16.to_be_bytes(), &[2]];
        frame(out, CONTENT_HEADER, 1, &header.concat());
        for part in body.chunks(FRAME_BYTES_MAX - HEAD_BYTES - 1) {
            frame(out, CONTENT_BODY, 1, part);
        }
        self.waiting.push_back(Some(slot));
    }

    fn take(&mut self, input: &[u8], _out: &mut Vec<u8>, acked: &mut Vec<u32>) -> Result<usize> {
        let mut taken = 0;
        while let Some((kind, payload)) = first_frame(&input[taken..])? {
            taken += HEAD_BYTES + payload.len() + 1;
            if kind == METHOD {
                ensure!(method(payload) == Some(ACK), "RabbitMQ sent {:?}, no confirm", method(payload));
                let tag = payload.get(4..).and_then(|rest| rest.first_chunk::<8>()).context("a tag")?;
                let many = payload.get(12).is_some_and(|bits| bits & 1 == 1);
                self.confirmed(u64::from_be_bytes(*tag), many, acked)?;
            }
        }
        Ok(taken)
    }
}

impl Amqp {
    fn confirmed(&mut self, tag: u64, many: bool, acked: &mut Vec<u32>) -> Result<()> {
        let at = tag.checked_sub(self.first).context("a confirm came twice")? as usize;
        ensure!(at < self.waiting.len(), "a confirm of tag {tag}, never used");
        let from = if many { 0 } else { at };
        acked.extend(self.waiting.range_mut(from..=at).filter_map(Option::take));
        while self.waiting.front() == Some(&None) {
            self.waiting.pop_front();
            self.first += 1;
        }
        Ok(())
    }
}

fn short(text: &str) -> Vec<u8> {
    [&[text.len() as u8][..], text.as_bytes()].concat()
}

fn frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(FRAME_END);
}

fn send(socket: &mut TcpStream, channel: u16, (class, method): (u16, u16), arguments: &[u8]) -> Result<()> {
    let mut out = Vec::new();
    let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat();
    frame(&mut out, METHOD, channel, &payload);
    Ok(socket.write_all(&out)?)
}

fn expect(socket: &mut TcpStream, wanted: (u16, u16)) -> Result<()> {
    let mut head = [0; HEAD_BYTES];
    socket.read_exact(&mut head)?;
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
    ensure!(size < FRAME_BYTES_MAX, "a frame of {size} bytes: is it AMQP?");
    let mut payload = vec![0; size + 1];
    socket.read_exact(&mut payload)?;
    if method(&payload) != Some(wanted) {
        bail!("expected {wanted:?}, RabbitMQ sent {:?}: {}", method(&payload), words(&payload));
    }
    Ok(())
}

fn words(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).chars().filter(|c| !c.is_control()).collect()
}

fn method(payload: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *payload.first_chunk::<4>()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

fn first_frame(input: &[u8]) -> Result<Option<(u8, &[u8])>> {
    let Some(head) = input.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
    ensure!(size <= FRAME_BYTES_MAX, "a frame of {size} bytes");
    let Some(rest) = input.get(HEAD_BYTES..HEAD_BYTES + size + 1) else { return Ok(None) };
    ensure!(rest[size] == FRAME_END, "a frame without its end");
    Ok(Some((head[0], &rest[..size])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(tag: u64, many: u8) -> Vec<u8> {
        let mut out = Vec::new();
        let payload = [&[0, 60, 0, 80][..], &tag.to_be_bytes(), &[many]].concat();
        frame(&mut out, METHOD, 1, &payload);
        out
    }

    #[test]
    fn confirms_come_in_any_order_singly_and_many_at_once() {
        let mut amqp = Amqp { first: 1, ..Amqp::default() };
        let mut out = Vec::new();
        for slot in 10..15 {
            amqp.put(slot, b"x", &mut out);
        }
        let (mut acked, input) = (Vec::new(), [ack(2, 0), ack(4, 1), ack(5, 0)].concat());
        let taken = amqp.take(&input[..input.len() - 1], &mut out, &mut acked).unwrap();
        assert_eq!(acked, [11, 10, 12, 13]);
        amqp.take(&input[taken..], &mut out, &mut acked).unwrap();
        assert_eq!(acked, [11, 10, 12, 13, 14]);
        assert!(amqp.take(&ack(6, 0), &mut out, &mut acked).is_err());
    }
}
