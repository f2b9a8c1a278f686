//! What an attack knows: addresses, a topic, until when it may go on. It shares nothing with the good client.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::tally::Tally;
use crate::addresses::Addresses;
use crate::nemesis::Dice;

/// Addresses of the loopback range used as sources, at most: 127.0.1.0 to 127.0.255.255.
const SOURCES: u32 = 0xff00;

/// Where an attack takes place; clones are the same place.
#[derive(Clone)]
pub struct Site(Arc<Inner>);

struct Inner {
    nodes: Vec<Addresses>,
    leader: usize,
    topic: String,
    until: Instant,
    seed: u64,
    tally: Tally,
}

impl Site {
    /// These nodes, the leader's place among them, the good client's topic, and how long the attack may last.
    #[must_use]
    pub fn new(nodes: Vec<Addresses>, leader: usize, topic: &str, length: Duration, seed: u64) -> Self {
        let (until, topic) = (Instant::now() + length, topic.to_owned());
        Self(Arc::new(Inner { nodes, leader, topic, until, seed, tally: Tally::default() }))
    }

    /// What was got through.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.0.tally
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Addresses] {
        &self.0.nodes
    }

    /// The leader's broker, as of the start.
    #[must_use]
    pub fn leader(&self) -> &str {
        &self.0.nodes[self.0.leader].broker
    }

    /// The broker of one node or another.
    #[must_use]
    pub fn broker(&self, number: usize) -> &str {
        &self.0.nodes[number % self.0.nodes.len()].broker
    }

    /// The topic that the good client uses.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.0.topic
    }

    /// A stream of random numbers: the same for the same seed and number.
    #[must_use]
    pub fn dice(&self, number: u64) -> Dice {
        Dice::new(self.0.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// Whether the time is up.
    #[must_use]
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.0.until
    }

    /// When the time is up.
    #[must_use]
    pub fn until(&self) -> Instant {
        self.0.until
    }

    /// Waits so long, or until the time is up.
    pub async fn pause(&self, length: Duration) {
        sleep(length.min(self.0.until.saturating_duration_since(Instant::now()))).await;
    }

    /// Waits until the time is up.
    pub async fn to_the_end(&self) {
        tokio::time::sleep_until(self.0.until).await;
    }
}

/// An address of the loopback range to connect from: many clients on one machine.
#[must_use]
pub(crate) fn source(number: u32) -> Ipv4Addr {
    let low = 0x100 + number % SOURCES;
    Ipv4Addr::from(0x7f00_0000 | low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_loopback_addresses_that_differ() {
        let all: std::collections::HashSet<Ipv4Addr> = (0..SOURCES).map(source).collect();
        assert_eq!(all.len(), SOURCES as usize);
        assert!(all.iter().all(Ipv4Addr::is_loopback));
        assert!(!all.contains(&Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn the_same_seed_rolls_the_same_numbers() {
        let site = |seed| Site::new(Vec::new(), 0, "t", Duration::ZERO, seed);
        assert_eq!(site(1).dice(2).roll(), site(1).dice(2).roll());
        assert_ne!(site(1).dice(2).roll(), site(1).dice(3).roll());
        assert_ne!(site(1).dice(2).roll(), site(2).dice(2).roll());
    }
}
