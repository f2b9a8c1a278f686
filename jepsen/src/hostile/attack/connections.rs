//! Connections that are only there, and those that only come and go.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Attack;
use crate::client::request;
use crate::hostile::ask::{self, NODE_STATUS};
use crate::hostile::lane::{dial, finish, push, repeat};
use crate::hostile::site::{Site, source};
use crate::hostile::tally::Floor;
use crate::nemesis::Doing;

/// Idle connections to each node's broker and NameServer together: above what a node may have open.
const IDLE: u32 = 1200;
/// Tasks that open them.
const OPENERS: u32 = 16;
/// Tasks that open a connection and close it at once.
const CHURNERS: u32 = 16;

pub(super) fn all() -> Vec<Box<dyn Attack>> {
    vec![Box::new(Idle), Box::new(Churn)]
}

struct Idle;

impl Attack for Idle {
    fn name(&self) -> &'static str {
        "idle-connections"
    }

    fn about(&self) -> &'static str {
        "1,200 connections to each node from as many addresses that say nothing"
    }

    fn floor(&self) -> Floor {
        Floor { opened: 600, frames: 0, bytes: 0, heard: 0 }
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            let mut tasks = JoinSet::new();
            let nodes = site.nodes().len() as u32;
            for opener in 0..OPENERS {
                let site = site.clone();
                tasks.spawn(async move {
                    let numbers = (opener..IDLE * nodes).step_by(OPENERS as usize);
                    hold(&site, numbers.collect()).await;
                });
            }
            finish(site, tasks).await;
            Ok(())
        })
    }
}

/// Opens these connections, and opens again those that a node closes.
async fn hold(site: &Site, numbers: Vec<u32>) {
    let mut held: Vec<Option<TcpStream>> = Vec::new();
    held.resize_with(numbers.len(), || None);
    while !site.is_over() {
        for (number, place) in numbers.iter().zip(&mut held) {
            if place.as_mut().is_some_and(is_closed) {
                site.tally().close();
                *place = None;
            }
            if place.is_none() && !site.is_over() {
                let node = &site.nodes()[*number as usize % site.nodes().len()];
                let address = if number.is_multiple_of(8) { &node.namesrv } else { &node.broker };
                *place = dial(site, address, Some(source(*number))).await.ok();
            }
        }
        site.pause(Duration::from_millis(200)).await;
    }
}

/// Whether the node has closed it.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    match stream.try_read(&mut byte) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

struct Churn;

impl Attack for Churn {
    fn name(&self) -> &'static str {
        "connection-churn"
    }

    fn about(&self) -> &'static str {
        "connections from many addresses that come, ask or ask not, and go, as fast as they are accepted"
    }

    fn floor(&self) -> Floor {
        Floor { opened: 200, frames: 50, bytes: 0, heard: 0 }
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            repeat(site, CHURNERS, |site, task, round| async move {
                // Many at once, so that the pause between rounds does not set the pace.
                for n in 0..16u64 {
                    come_and_go(&site, u64::from(task) * 1_000_003 + round * 16 + n).await;
                }
            })
            .await;
            Ok(())
        })
    }
}

async fn come_and_go(site: &Site, number: u64) {
    let address = site.broker(number as usize);
    let Ok(mut stream) = dial(site, address, Some(source(number as u32))).await else { return };
    // Reset, not closed in order: half of what a broken network does, and no port of ours is kept waiting.
    drop(stream.set_zero_linger());
    if number.is_multiple_of(3) {
        let request = ask::bytes(request(NODE_STATUS, []), number);
        if push(site, &mut stream, &request).await.is_ok() && number.is_multiple_of(2) {
            let mut answer = [0; 64];
            if matches!(stream.read(&mut answer).await, Ok(count) if count > 0) {
                site.tally().note("answers begun to read");
            }
        }
    }
}
