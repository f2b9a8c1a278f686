//! Locks of orderly consumers: a small request that becomes much replicated state.

use std::time::Duration;

use super::Attack;
use crate::hostile::ask::{self, LOCK_BATCH_MQ};
use crate::hostile::lane::Flood;
use crate::hostile::site::Site;
use crate::hostile::tally::Floor;
use crate::nemesis::Doing;

/// Bytes of the client ids, from what fits the limit to what never did.
const CLIENT_ID_BYTES: [usize; 5] = [255, 256, 8 << 10, 64 << 10, 512 << 10];
/// Queues of one request.
const QUEUES: u32 = 6000;
/// Requests of each size that are made ahead.
const CONNECTIONS: u32 = 4;

pub(super) fn all() -> Vec<Box<dyn Attack>> {
    vec![Box::new(LockBomb), Box::new(LockSpread)]
}

struct LockBomb;

impl Attack for LockBomb {
    fn name(&self) -> &'static str {
        "lock-bomb"
    }

    fn about(&self) -> &'static str {
        "locks thousands of queues for client ids of up to 512 KiB"
    }

    fn floor(&self) -> Floor {
        Floor { opened: CONNECTIONS.into(), frames: 10, bytes: 0, heard: 5 }
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            let topic = site.topic().to_owned();
            let bombs = CLIENT_ID_BYTES.map(|bytes| {
                let client = "c".repeat(bytes);
                ask::bytes(ask::lock(LOCK_BATCH_MQ, ask::GROUP, &client, &topic, QUEUES), 1)
            });
            let targets: Vec<String> = site.nodes().iter().map(|node| node.broker.clone()).collect();
            let flood = Flood { pause: Duration::from_millis(50), ..Flood::new(CONNECTIONS, 2) };
            flood.run(site, &targets, move |lane, n| bombs[(lane + n) as usize % bombs.len()].clone()).await;
            Ok(())
        })
    }
}

struct LockSpread;

impl Attack for LockSpread {
    fn name(&self) -> &'static str {
        "lock-spread"
    }

    fn about(&self) -> &'static str {
        "locks the same queues for a new client, group and missing topic with each request"
    }

    fn floor(&self) -> Floor {
        Floor { opened: CONNECTIONS.into(), frames: 50, bytes: 0, heard: 20 }
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            let topic = site.topic().to_owned();
            let make = move |lane: u64, n: u64| {
                let (group, client) = (format!("spread-{lane}-{n}"), format!("client-{lane}-{n}"));
                let missing = format!("missing-{lane}-{n}");
                let topic = if n.is_multiple_of(2) { &topic } else { &missing };
                ask::bytes(ask::lock(LOCK_BATCH_MQ, &group, &client, topic, 100), n)
            };
            Flood::new(CONNECTIONS, 8).run(site, &[site.leader().to_owned()], make).await;
            Ok(())
        })
    }
}
