//! Time during which this process did not run, as a stopped or starved one does not.
//!
//! What lay in its sockets meanwhile came at an unknown time in it. A request that is read right after a stall is taken to
//! have come when the stall began: its client may have given it up since, and another node may have served its retry.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often the process notes that it runs.
const TICK: Duration = Duration::from_millis(50);
/// A process that noted nothing for this long did not run; a busy one is late by less.
const STALL: Duration = Duration::from_millis(500);
/// How long after a stall what lay in the sockets is still being read.
const CATCH_UP: Duration = Duration::from_secs(1);

/// Stalls of this process. Times are milliseconds since it was made.
#[derive(Debug)]
pub struct Stalls {
    since: Instant,
    ticked: AtomicU64,
    /// The last stall.
    began: AtomicU64,
    ended: AtomicU64,
}

impl Stalls {
    /// Of a process that starts now.
    #[expect(clippy::new_without_default, reason = "it begins with the time of the call")]
    pub fn new() -> Stalls {
        let (ticked, began, ended) = Default::default();
        Stalls { since: Instant::now(), ticked, began, ended }
    }

    /// Notes that the process runs, until the node stops.
    pub async fn watch(&self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.tick(ticks.tick().await.max(Instant::now()));
        }
    }

    fn tick(&self, now: Instant) {
        let (now, before) = (self.ms(now), self.ticked.load(Ordering::Relaxed));
        if now.saturating_sub(before) >= STALL.as_millis() as u64 && before > 0 {
            self.began.store(before, Ordering::Relaxed);
            self.ended.store(now, Ordering::Relaxed);
        }
        self.ticked.store(now.max(1), Ordering::Relaxed);
    }

    /// When a request came that is read now, at the earliest.
    pub fn arrival(&self, now: Instant) -> Instant {
        let (at, ticked) = (self.ms(now), self.ticked.load(Ordering::Relaxed));
        let ended = self.ended.load(Ordering::Relaxed);
        let came = if ticked > 0 && at.saturating_sub(ticked) >= STALL.as_millis() as u64 {
            ticked
        } else if ended > 0 && at.saturating_sub(ended) < CATCH_UP.as_millis() as u64 {
            self.began.load(Ordering::Relaxed)
        } else {
            return now;
        };
        now.min(self.since + Duration::from_millis(came))
    }

    fn ms(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.since).as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_right_after_a_stall_came_when_it_began() {
        let stalls = Stalls::new();
        let at = |ms: u64| stalls.since + Duration::from_millis(ms);
        assert_eq!(stalls.arrival(at(9_000)), at(9_000), "nobody watches yet");
        (1..=20).for_each(|tick| stalls.tick(at(tick * 50)));
        assert_eq!(stalls.arrival(at(1_040)), at(1_040));
        // The process stands still until 5,000; whoever comes first finds that out.
        assert_eq!(stalls.arrival(at(5_000)), at(1_000));
        stalls.tick(at(5_000));
        assert_eq!(stalls.arrival(at(5_001)), at(1_000));
        stalls.tick(at(5_900));
        assert_eq!(stalls.arrival(at(5_900)), at(5_000), "another stall");
        stalls.tick(at(5_950));
        stalls.tick(at(6_880));
        (1..=30).for_each(|tick| stalls.tick(at(6_880 + tick * 40)));
        assert_eq!(stalls.arrival(at(8_000)), at(8_000));
    }
}
