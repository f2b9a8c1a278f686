//! How fast consumer groups consume, over the last minute: what their commits moved forward, counted where commits are
//! proposed. A new leader begins with nothing.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

/// The last minute, in pieces.
const PIECE: Duration = Duration::from_secs(10);
const PIECES: u64 = 6;
/// Groups that are counted before those at rest are looked for.
const GROUPS: usize = 256;

/// See the module.
#[derive(Default)]
pub(crate) struct Rates(Mutex<Meters>);

struct Meters {
    begin: Instant,
    groups: HashMap<String, Meter>,
    /// Groups at rest are forgotten when there are so many.
    look_at: usize,
}

/// Messages in each piece of the last minute and in the one that is not over.
#[derive(Default)]
struct Meter {
    counts: [u64; PIECES as usize + 1],
    /// The piece that messages were counted in last.
    piece: u64,
}

impl Default for Meters {
    fn default() -> Self {
        Self { begin: Instant::now(), groups: HashMap::new(), look_at: GROUPS }
    }
}

impl Rates {
    /// A group has consumed so many messages.
    pub(crate) fn consumed(&self, group: &str, messages: u64) {
        if messages == 0 {
            return;
        }
        let mut meters = self.0.lock();
        let now = meters.piece();
        if let Some(meter) = meters.groups.get_mut(group) {
            return meter.add(now, messages);
        }
        if meters.groups.len() >= meters.look_at {
            meters.groups.retain(|_, meter| now <= meter.piece + PIECES);
            meters.look_at = GROUPS.max(2 * meters.groups.len());
        }
        meters.groups.entry(group.to_owned()).or_default().add(now, messages);
    }

    /// Messages in a second.
    pub(crate) fn of(&self, group: &str) -> f64 {
        let meters = self.0.lock();
        let now = meters.piece();
        meters.groups.get(group).map_or(0.0, |meter| meter.per_second(now))
    }
}

impl Meters {
    fn piece(&self) -> u64 {
        self.begin.elapsed().as_secs() / PIECE.as_secs()
    }
}

impl Meter {
    fn add(&mut self, now: u64, messages: u64) {
        // Pieces in which nothing came.
        for piece in (self.piece + 1..=now).rev().take(self.counts.len()) {
            self.counts[Self::at(piece)] = 0;
        }
        self.piece = now;
        self.counts[Self::at(now)] += messages;
    }

    /// Over the pieces that are over.
    fn per_second(&self, now: u64) -> f64 {
        let first = now.saturating_sub(PIECES);
        let pieces = (first..now).filter(|piece| *piece <= self.piece && self.piece < piece + PIECES + 1);
        let messages: u64 = pieces.map(|piece| self.counts[Self::at(piece)]).sum();
        messages as f64 / (now - first).max(1) as f64 / PIECE.as_secs_f64()
    }

    fn at(piece: u64) -> usize {
        (piece % (PIECES + 1)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_that_of_the_last_minute() {
        let rates = Rates::default();
        let pass = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        assert_eq!(rates.of("billing"), 0.0);
        for _ in 0..6 {
            rates.consumed("billing", 100);
            pass(10).await;
        }
        assert_eq!(rates.of("billing"), 10.0);
        assert_eq!(rates.of("shipping"), 0.0);
        pass(30).await;
        assert_eq!(rates.of("billing"), 5.0, "nothing for half a minute");
        rates.consumed("billing", 6_000);
        assert_eq!(rates.of("billing"), 5.0, "that piece is not over");
        pass(10).await;
        assert_eq!(rates.of("billing"), (200.0 + 6_000.0) / 60.0);
        pass(600).await;
        assert_eq!(rates.of("billing"), 0.0);
    }

    #[tokio::test(start_paused = true)]
    async fn groups_at_rest_are_forgotten() {
        let rates = Rates::default();
        (0..GROUPS).for_each(|group| rates.consumed(&format!("g{group}"), 1));
        tokio::time::advance(Duration::from_secs(100)).await;
        rates.consumed("one more", 1);
        assert_eq!(rates.0.lock().groups.len(), 1);
    }
}
