//! Clients that take their time: bytes one by one, frames that never end, answers that nobody reads.

use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::Attack;
use crate::hostile::ask;
use crate::hostile::good::QUEUES;
use crate::hostile::lane::{dial, finish, half_frame, push, repeat};
use crate::hostile::site::{Site, source};
use crate::hostile::tally::Floor;
use crate::nemesis::Doing;

/// Connections that send a byte now and then.
const LORISES: u32 = 300;
/// Pause between two of its bytes.
const BYTE_EVERY: Duration = Duration::from_millis(250);
/// Connections with a half frame of the largest size.
const HALVES: u32 = 60;
/// Connections that do not read.
const DEAF: u32 = 20;
/// Requests that such a connection sends at most: their answers are some ten times as large as all that waits anywhere.
const DEAF_REQUESTS: u64 = 20_000;

pub(super) fn all() -> Vec<Box<dyn Attack>> {
    vec![Box::new(SlowLoris), Box::new(HalfFrames), Box::new(SlowReaders)]
}

struct SlowLoris;

impl Attack for SlowLoris {
    fn name(&self) -> &'static str {
        "slow-loris"
    }

    fn about(&self) -> &'static str {
        "300 connections whose frames come byte by byte"
    }

    fn floor(&self) -> Floor {
        Floor { opened: u64::from(LORISES), frames: u64::from(LORISES) * 2, bytes: 0, heard: 0 }
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            let request = ask::bytes(ask::pull(site.topic(), 0, 0, "*", Duration::ZERO), 1);
            repeat(site, LORISES, move |site, number, _| {
                let request = request.clone();
                async move { drip(&site, number, &request).await }
            })
            .await;
            Ok(())
        })
    }
}

async fn drip(site: &Site, number: u32, request: &[u8]) {
    let Ok(mut stream) = dial(site, site.broker(number as usize), Some(source(number))).await else { return };
    for byte in request.chunks(1) {
        if push(site, &mut stream, byte).await.is_err() {
            site.tally().close();
            return;
        }
        site.pause(BYTE_EVERY).await;
        if site.is_over() {
            return;
        }
    }
}

struct HalfFrames;

impl Attack for HalfFrames {
    fn name(&self) -> &'static str {
        "half-frames"
    }

    fn about(&self) -> &'static str {
        "60 frames of 16 MiB of which the last byte does not come"
    }

    fn floor(&self) -> Floor {
        Floor { opened: u64::from(HALVES), frames: u64::from(HALVES), bytes: 4 << 20, heard: 0 }
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            repeat(site, HALVES, |site, number, _| async move { half(&site, number).await }).await;
            Ok(())
        })
    }
}

/// Sends all of a frame of the largest size but its last byte, and waits.
async fn half(site: &Site, number: u32) {
    let length = (16u32 << 20) - 4;
    let mut head = length.to_be_bytes().to_vec();
    // A header of one byte; the rest is body.
    head.extend(1u32.to_be_bytes());
    half_frame(site, site.leader(), number, &head, length as usize - 4).await;
}

struct SlowReaders;

impl Attack for SlowReaders {
    fn name(&self) -> &'static str {
        "slow-readers"
    }

    fn about(&self) -> &'static str {
        "20 connections that pull what is there again and again and do not read the answers"
    }

    fn floor(&self) -> Floor {
        Floor { opened: u64::from(DEAF), frames: u64::from(DEAF) * 10, bytes: 0, heard: 0 }
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            let mut tasks = JoinSet::new();
            for number in 0..DEAF {
                let site = site.clone();
                let request = ask::bytes(ask::pull(site.topic(), number % QUEUES, 0, "*", Duration::ZERO), 1);
                tasks.spawn(async move { deaf(&site, number, &request).await });
            }
            finish(site, tasks).await;
            Ok(())
        })
    }
}

async fn deaf(site: &Site, number: u32, request: &Bytes) {
    while !site.is_over() {
        if let Ok(mut stream) = dial(site, site.leader(), Some(source(number))).await {
            for _ in 0..DEAF_REQUESTS {
                if push(site, &mut stream, request).await.is_err() {
                    site.tally().close();
                    break;
                }
            }
        }
        site.pause(Duration::from_millis(100)).await;
    }
}
