//! NATS JetStream: a message published with a reply subject is acknowledged by a message to that subject.
//! The slot is the reply subject's last part.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::peer::Peer;

const STREAM: &str = "bench";
/// How long a new cluster gets to elect the leader that makes streams.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest line of the protocol that is waited for.
const LINE_BYTES_MAX: usize = 64 << 10;

/// One connection.
pub(super) struct Nats {
    inbox: String,
}

impl Nats {
    pub(super) fn new(number: usize) -> Self {
        Self { inbox: format!("_INBOX.{}-{number}", std::process::id()) }
    }
}

impl Peer for Nats {
    fn open(&mut self, socket: &mut TcpStream) -> Result<()> {
        let hello = format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false,\"lang\":\"rust\",\"version\":\"1\",\"protocol\":1}}\r\n\
             SUB {}.* 1\r\n",
            self.inbox
        );
        Ok(socket.write_all(hello.as_bytes())?)
    }

    fn put(&mut self, slot: u32, body: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(format!("PUB {STREAM} {}.{slot} {}\r\n", self.inbox, body.len()).as_bytes());
        out.extend_from_slice(body);
        out.extend_from_slice(b"\r\n");
    }

    fn take(&mut self, input: &[u8], out: &mut Vec<u8>, acked: &mut Vec<u32>) -> Result<usize> {
        let mut taken = 0;
        while let Some((event, size)) = next(&input[taken..])? {
            taken += size;
            match event {
                Event::Ping => out.extend_from_slice(b"PONG\r\n"),
                Event::Message { slot, body } => {
                    if body.windows(7).any(|part| part == b"\"error\"") {
                        bail!("JetStream refused a message: {}", String::from_utf8_lossy(body));
                    }
                    acked.push(slot);
                }
                Event::Other => {}
            }
        }
        Ok(taken)
    }
}

enum Event<'a> {
    Ping,
    Message { slot: u32, body: &'a [u8] },
    Other,
}

/// The first whole event and how many bytes it takes.
fn next(input: &[u8]) -> Result<Option<(Event<'_>, usize)>> {
    let Some(end) = input.windows(2).take(LINE_BYTES_MAX).position(|pair| pair == b"\r\n") else {
        if input.len() > LINE_BYTES_MAX {
            bail!("a line longer than {LINE_BYTES_MAX} bytes: is it NATS?");
        }
        return Ok(None);
    };
    let line = std::str::from_utf8(&input[..end])?;
    if line == "PING" {
        return Ok(Some((Event::Ping, end + 2)));
    }
    if let Some(words) = line.strip_prefix("MSG ") {
        let subject = words.split(' ').next().unwrap_or_default();
        let size: usize = words.rsplit(' ').next().unwrap_or_default().parse().context("a size")?;
        let Some(body) = input.get(end + 2..).and_then(|rest| rest.get(..size)) else { return Ok(None) };
        let taken = end + 2 + size + 2;
        if input.len() < taken {
            return Ok(None);
        }
        let slot = subject.rsplit('.').next().unwrap_or_default().parse().context("a slot")?;
        return Ok(Some((Event::Message { slot, body }, taken)));
    }
    if line.starts_with("-ERR") {
        bail!("NATS says {line}");
    }
    Ok(Some((Event::Other, end + 2)))
}

/// Makes the stream with three replicas; where its leader is, whose clients have the shortest way.
pub(super) fn make_stream(addresses: &[String]) -> Result<Vec<String>> {
    let config = format!(
        "{{\"name\":\"{STREAM}\",\"subjects\":[\"{STREAM}\"],\"retention\":\"limits\",\"storage\":\"file\",\
         \"num_replicas\":3,\"max_consumers\":-1,\"max_msgs\":-1,\"max_bytes\":-1,\"max_age\":0,\
         \"discard\":\"old\"}}"
    );
    let begun = Instant::now();
    loop {
        let answer = ask(&addresses[0], &format!("$JS.API.STREAM.CREATE.{STREAM}"), &config);
        match answer {
            Ok(answer) => {
                let leader = serde_json::from_str::<serde_json::Value>(&answer).ok();
                let leader = leader.and_then(|json| json["cluster"]["leader"].as_str().map(str::to_owned));
                // The servers are named n1, n2, n3.
                let index = leader.and_then(|name| name.strip_prefix('n')?.parse::<usize>().ok());
                let at = index.and_then(|index| addresses.get(index.checked_sub(1)?));
                return Ok(at.map_or_else(|| addresses.to_vec(), |address| vec![address.clone()]));
            }
            Err(error) if begun.elapsed() > PATIENCE => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(500)),
        }
    }
}

fn ask(address: &str, subject: &str, body: &str) -> Result<String> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut peer = Nats::new(usize::MAX);
    peer.open(&mut socket)?;
    let request = format!("PUB {subject} {}.0 {}\r\n{body}\r\n", peer.inbox, body.len());
    socket.write_all(request.as_bytes())?;
    let (mut input, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = socket.read(&mut buffer)?;
        if read == 0 {
            bail!("{address} closed the connection");
        }
        input.extend_from_slice(&buffer[..read]);
        while let Some((event, size)) = next(&input)? {
            if let Event::Message { body, .. } = event {
                let answer = String::from_utf8_lossy(body).into_owned();
                if answer.contains("\"error\"") {
                    bail!("JetStream answers {answer}");
                }
                return Ok(answer);
            }
            input.drain(..size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_are_told_from_pings_and_partial_ones_are_waited_for() {
        let mut nats = Nats::new(0);
        let (mut out, mut acked) = (Vec::new(), Vec::new());
        let input = b"INFO {}\r\nPING\r\nMSG _INBOX.1-0.7 1 22\r\n{\"stream\":\"b\",\"seq\":1}\r\nMSG _INBOX.1-0.8 1 22\r\n{\"st";
        let taken = nats.take(input, &mut out, &mut acked).unwrap();
        assert_eq!((&out[..], &acked[..]), (&b"PONG\r\n"[..], &[7][..]));
        assert!(input[taken..].starts_with(b"MSG _INBOX.1-0.8"));
        assert!(nats.take(b"MSG a.1 1 11\r\n{\"error\":1}\r\n", &mut out, &mut acked).is_err());
    }
}
