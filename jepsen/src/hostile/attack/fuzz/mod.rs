//! Clients in random orders, with what they say changed at random.
//!
//! A session is a connection: it joins a group, subscribes, sends, pulls, locks, commits and leaves in an order that the seed
//! gives, and keeps to what it did before, so that requests get past the first check. Every third request is changed: fields
//! that are missing, twice, of another type, extreme, long, no UTF-8; bodies cut and mixed; frames with wrong lengths. What
//! a session sends depends on the seed alone, not on answers or time.

mod mutate;
mod raw;
mod script;

use std::time::Duration;

use super::Attack;
use crate::hostile::lane::{Lane, repeat};
use crate::hostile::site::{Site, source};
use crate::hostile::tally::Floor;
use crate::nemesis::Doing;
use script::Script;

/// Connections at once.
const CONNECTIONS: u32 = 8;
/// Unanswered requests of each: what is changed may never be answered.
const WINDOW: usize = 100_000;
/// Pause between two requests.
const PAUSE: Duration = Duration::from_millis(3);
/// How long a session waits at its end for answers that are under way.
const LINGER: Duration = Duration::from_millis(20);

pub(super) struct Fuzz;

impl Attack for Fuzz {
    fn name(&self) -> &'static str {
        "fuzz"
    }

    fn about(&self) -> &'static str {
        "clients that join, send, pull, lock, commit and leave in random orders, every third request changed"
    }

    fn floor(&self) -> Floor {
        Floor { opened: 20, frames: 500, bytes: 0, heard: 100 }
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            repeat(site, CONNECTIONS, |site, number, round| async move {
                session(&site, number, round).await;
            })
            .await;
            Ok(())
        })
    }
}

/// One connection from its first request to its last.
async fn session(site: &Site, number: u32, round: u64) {
    let script = Script::new(site.dice(u64::from(number) << 40 | round), number, site.topic());
    let address = match script.at_name_server() {
        true => &site.nodes()[script.node() % site.nodes().len()].namesrv,
        false => site.broker(script.node()),
    };
    let Ok(mut lane) = Lane::open(site, address, Some(source(number)), WINDOW).await else { return };
    for bytes in script {
        if lane.write(&bytes).await.is_err() || site.is_over() {
            return;
        }
        site.pause(PAUSE).await;
    }
    site.pause(LINGER).await;
}
