//! Commands that handle many messages: how fast, how far they are, and that they end when they are told to.

use std::pin::Pin;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, sleep_until};

/// How fast.
#[derive(Debug, Clone, Args)]
pub(super) struct BulkArgs {
    /// Messages a second at most; default: as fast as possible.
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
}

/// The messages that are handled one after the other.
pub(super) struct Bulk {
    bar: ProgressBar,
    pause: Duration,
    next: Instant,
    interrupt: Pin<Box<dyn Future<Output = ()>>>,
}

impl Bulk {
    /// About so many; the bar is shown on a terminal, and none for 0.
    pub(super) fn new(args: &BulkArgs, count: u64) -> Bulk {
        let bar = if count == 0 { ProgressBar::hidden() } else { ProgressBar::new(count) };
        if let Ok(style) = ProgressStyle::with_template("{bar:32} {pos}/{len} {per_sec}, {eta} left") {
            bar.set_style(style);
        }
        let interrupt = Box::pin(async {
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending().await
            }
        });
        let pause = args.rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate);
        Bulk { bar, pause, next: Instant::now(), interrupt }
    }

    /// Waits for the next message's turn; false if the user has interrupted the command.
    pub(super) async fn turn(&mut self) -> bool {
        let next = self.next;
        self.next = next.max(Instant::now()) + self.pause;
        tokio::select! {
            biased;
            () = &mut self.interrupt => false,
            () = sleep_until(next) => true,
        }
    }

    /// One more is done.
    pub(super) fn one(&self) {
        self.bar.inc(1);
    }

    /// How many are done.
    pub(super) fn done(&self) -> u64 {
        self.bar.position()
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn messages_come_no_faster_than_the_rate() {
        let mut bulk = Bulk::new(&BulkArgs { rate: Some(10) }, 20);
        let begun = Instant::now();
        for _ in 0..20 {
            assert!(bulk.turn().await);
            bulk.one();
        }
        assert!((1_900..2_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
        assert_eq!(bulk.done(), 20);
    }
}
