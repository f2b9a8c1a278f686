//! The Raft port as a port: connections, half frames, giant lengths, silence.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::Attack;
use crate::hostile::forge;
use crate::hostile::intruder::first_frames;
use crate::hostile::lane::{dial, half_frame, push, repeat};
use crate::hostile::site::{Site, source};
use crate::hostile::tally::Floor;
use crate::nemesis::Doing;

/// Connections at once, to all nodes together.
const MANY: u32 = 900;
/// Connections with a half frame of the largest size.
const HALVES: u32 = 24;
/// Bytes that a peer's frame may have.
const FRAME_BYTES_MAX: usize = 64 << 20;

pub(super) fn all() -> Vec<Box<dyn Attack>> {
    vec![Box::new(Connections), Box::new(BadFrames), Box::new(HalfFrames), Box::new(Silence)]
}

fn raft(site: &Site, number: u32) -> &str {
    &site.nodes()[number as usize % site.nodes().len()].raft
}

struct Connections;

impl Attack for Connections {
    fn name(&self) -> &'static str {
        "peer-connections"
    }

    fn about(&self) -> &'static str {
        "900 connections to the Raft ports that say nothing, made again whenever they are closed"
    }

    fn floor(&self) -> Floor {
        Floor { opened: 450, frames: 0, bytes: 0, heard: 0 }
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            repeat(site, MANY, |site, number, _| async move {
                let Ok(stream) = dial(&site, raft(&site, number), Some(source(number))).await else { return };
                // Readable means closed: a node does not speak first.
                if tokio::time::timeout_at(site.until(), stream.readable()).await.is_ok() {
                    site.tally().close();
                    site.pause(Duration::from_millis(200)).await;
                }
            })
            .await;
            Ok(())
        })
    }
}

struct BadFrames;

impl Attack for BadFrames {
    fn name(&self) -> &'static str {
        "peer-bad-frames"
    }

    fn about(&self) -> &'static str {
        "what is no hello, no frame or no length, at the Raft ports"
    }

    fn floor(&self) -> Floor {
        Floor { opened: 50, frames: 50, bytes: 0, heard: 25 }
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            let frames = std::sync::Arc::new(bad_frames());
            repeat(site, 16, move |site, number, round| {
                let frames = std::sync::Arc::clone(&frames);
                async move {
                    let frame = &frames[(u64::from(number) + round) as usize % frames.len()];
                    refused(&site, number, frame).await;
                }
            })
            .await;
            Ok(())
        })
    }
}

/// Sends this as the first thing, and waits a little for the end of the connection.
async fn refused(site: &Site, number: u32, bytes: &[u8]) {
    let Ok(mut stream) = dial(site, raft(site, number), None).await else { return };
    if push(site, &mut stream, bytes).await.is_ok() {
        let heard = tokio::time::timeout(Duration::from_millis(300), stream.readable()).await;
        match heard {
            Ok(_) => site.tally().close(),
            Err(_) => site.tally().note("still open after a bad frame"),
        }
    }
}

fn head(length: u32, kind: u8) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u32_le(length);
    out.put_u8(kind);
    out.put_u64_le(1);
    out.freeze()
}

fn bad_frames() -> Vec<Bytes> {
    let mut frames = vec![
        Bytes::from_static(b"GET / HTTP/1.1\r\nHost: raft\r\n\r\n"),
        Bytes::from_static(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        head(0, forge::HELLO),
        head(8, forge::HELLO),
        head(u32::MAX, forge::HELLO),
        head(FRAME_BYTES_MAX as u32 + 1, forge::HELLO),
        head(9, 0),
        head(9, 255),
    ];
    let bodies: [&[u8]; 4] =
        [b"", b"FQ\x01\x00", b"FQ\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff", b"XX\x09\x00abc"];
    frames.extend(bodies.iter().map(|body| forge::frame(forge::HELLO, 0, body)));
    // Requests before a hello.
    let kinds = [forge::APPEND, forge::VOTE, forge::SUMMARY, forge::SNAPSHOT, forge::ANSWER, forge::FAILURE];
    frames.extend(kinds.iter().map(|kind| forge::frame(*kind, 1, b"FQ\x01\x00")));
    frames
}

struct HalfFrames;

impl Attack for HalfFrames {
    fn name(&self) -> &'static str {
        "peer-half-frames"
    }

    fn about(&self) -> &'static str {
        "24 frames of 64 MiB at the Raft ports of which the last byte does not come, as the first thing said"
    }

    fn floor(&self) -> Floor {
        Floor { opened: u64::from(HALVES), frames: u64::from(HALVES), bytes: 0, heard: 0 }
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            repeat(site, HALVES, |site, number, _| async move {
                let head = head(FRAME_BYTES_MAX as u32, forge::HELLO);
                // The length counts the nine bytes of the head that follow it.
                half_frame(&site, raft(&site, number), number, &head, FRAME_BYTES_MAX - 9).await;
            })
            .await;
            Ok(())
        })
    }
}

struct Silence;

impl Attack for Silence {
    fn name(&self) -> &'static str {
        "peer-silence"
    }

    fn about(&self) -> &'static str {
        "connections to the Raft ports that introduce themselves, begin a giant frame and say no more"
    }

    fn floor(&self) -> Floor {
        Floor { opened: 90, frames: 90, bytes: 0, heard: 0 }
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            repeat(site, 90, |site, number, round| async move {
                let hellos = first_frames(&site, number);
                let hello = &hellos[(u64::from(number) + round) as usize % hellos.len()];
                let Ok(mut stream) = dial(&site, raft(&site, number), Some(source(number))).await else {
                    return;
                };
                let begun = head(FRAME_BYTES_MAX as u32, forge::SUMMARY);
                if push(&site, &mut stream, hello).await.is_ok()
                    && push(&site, &mut stream, &begun).await.is_ok()
                {
                    site.to_the_end().await;
                }
            })
            .await;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bad_frame_is_a_whole_hello() {
        for bytes in bad_frames() {
            let length = bytes.first_chunk::<4>().map(|length| u32::from_le_bytes(*length) as usize);
            let whole = length.is_some_and(|length| length + 4 == bytes.len() && length >= 9);
            let hello = bytes.get(4) == Some(&forge::HELLO) && bytes.len() > 64;
            assert!(!(whole && hello), "{bytes:?}");
        }
    }
}
