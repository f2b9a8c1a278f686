//! Pulls that wait: by the ten thousand, with expressions of a megabyte, past the end of their queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::Attack;
use crate::client::Client;
use crate::hostile::ask;
use crate::hostile::good::QUEUES;
use crate::hostile::lane::{Flood, finish};
use crate::hostile::site::Site;
use crate::hostile::tally::Floor;
use crate::nemesis::Doing;

/// Pulls that wait on one connection.
const HELD: usize = 50_000;
/// Pulls with a giant expression.
const GIANT_PULLS: u64 = 40;
/// Bytes of it.
const EXPRESSION_BYTES: usize = 1_000_000;
/// How long a pull wants to wait.
const WAIT: Duration = Duration::from_secs(30);
/// An offset that no queue reaches.
const FAR: u64 = 1 << 60;
/// The largest offset there is.
const LARGEST: u64 = u64::MAX >> 1;
/// How often is asked where the queues end.
const FOLLOW_EVERY: Duration = Duration::from_millis(5);

pub(super) fn all() -> Vec<Box<dyn Attack>> {
    vec![Box::new(NoMatch), Box::new(Expressions), Box::new(PastEnd)]
}

struct NoMatch;

impl Attack for NoMatch {
    fn name(&self) -> &'static str {
        "held-pulls"
    }

    fn about(&self) -> &'static str {
        "50,000 pulls on one connection that wait for a tag no message has, while messages arrive"
    }

    fn floor(&self) -> Floor {
        Floor { opened: 1, frames: 1000, bytes: 0, heard: 0 }
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            let ends = Arc::new(Ends::default());
            let mut tasks = JoinSet::new();
            let (from, to) = (site.clone(), Arc::clone(&ends));
            tasks.spawn(async move { to.follow(&from).await });
            ends.known(site).await;
            let topic = site.topic().to_owned();
            let make = move |_, n: u64| {
                let (queue, tag) = ((n % u64::from(QUEUES)) as u32, format!("never-{}", n % 100));
                ask::bytes(ask::pull(&topic, queue, ends.of(queue), &tag, WAIT), n)
            };
            Flood::new(1, HELD).run(site, &[site.leader().to_owned()], make).await;
            finish(site, tasks).await;
            Ok(())
        })
    }
}

/// Where the queues of the good client's topic end: a pull there waits.
#[derive(Default)]
struct Ends([AtomicU64; QUEUES as usize]);

impl Ends {
    fn of(&self, queue: u32) -> u64 {
        self.0[queue as usize % self.0.len()].load(Ordering::Relaxed)
    }

    /// Asks again and again until the time is up.
    async fn follow(&self, site: &Site) {
        let client = Client::new(Vec::new(), ask::GROUP);
        while !site.is_over() {
            for (queue, end) in (0..).zip(&self.0) {
                if let Ok(pulled) = client.pull(site.leader(), site.topic(), queue, 0).await {
                    end.store(pulled.max, Ordering::Relaxed);
                }
            }
            site.pause(FOLLOW_EVERY).await;
        }
    }

    /// Waits until the ends are known, or the time is up.
    async fn known(&self, site: &Site) {
        while !site.is_over() && (0..QUEUES).any(|queue| self.of(queue) == 0) {
            site.pause(FOLLOW_EVERY).await;
        }
    }
}

struct Expressions;

impl Attack for Expressions {
    fn name(&self) -> &'static str {
        "pull-expressions"
    }

    fn about(&self) -> &'static str {
        "pulls that wait with an expression of a megabyte, of which each tag takes more memory than bytes"
    }

    fn floor(&self) -> Floor {
        Floor { opened: 4, frames: 8, bytes: 8 << 20, heard: 0 }
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            let (many, distinct) = ("a||".repeat(EXPRESSION_BYTES / 3), distinct_tags());
            let topic = site.topic().to_owned();
            let requests = [many, distinct].map(|expression| {
                [0, LARGEST, FAR].map(|offset| ask::bytes(ask::pull(&topic, 0, offset, &expression, WAIT), 1))
            });
            let flood = Flood { pause: Duration::from_millis(50), ..Flood::new(4, GIANT_PULLS as usize / 4) };
            let make = move |lane: u64, n: u64| {
                let requests = &requests[lane as usize % requests.len()];
                requests[n as usize % requests.len()].clone()
            };
            flood.run(site, &[site.leader().to_owned()], make).await;
            Ok(())
        })
    }
}

fn distinct_tags() -> String {
    let mut expression = String::with_capacity(EXPRESSION_BYTES + 16);
    let mut number = 0u32;
    while expression.len() < EXPRESSION_BYTES {
        expression.push_str(&format!("{number:x}||"));
        number += 1;
    }
    expression
}

struct PastEnd;

impl Attack for PastEnd {
    fn name(&self) -> &'static str {
        "pulls-past-end"
    }

    fn about(&self) -> &'static str {
        "pulls behind the end of their queue as fast as they are answered"
    }

    fn floor(&self) -> Floor {
        Floor { opened: 8, frames: 200, bytes: 0, heard: 20 }
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            let topic = site.topic().to_owned();
            let make = move |lane: u64, n: u64| {
                let (queue, offset) =
                    ((lane % u64::from(QUEUES)) as u32, [FAR, LARGEST, u64::MAX][n as usize % 3]);
                ask::bytes(ask::pull(&topic, queue, offset, "*", WAIT), n)
            };
            Flood::new(8, 256).run(site, &[site.leader().to_owned()], make).await;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expression_is_as_large_as_it_says_and_fits_a_frame() {
        let expression = distinct_tags();
        assert!((EXPRESSION_BYTES..EXPRESSION_BYTES + 16).contains(&expression.len()));
        assert!(!ask::bytes(ask::pull("t", 0, 0, &expression, WAIT), 1).is_empty());
    }
}
