//! `folio bench`: a load generator that speaks the RocketMQ wire like any client.
//!
//! Closed loop: a fixed number of requests is outstanding, over a few connections; each connection is one task
//! that encodes into one buffer, writes it at once, and reads whatever answers came. It shares the machine with
//! the servers it measures, so it spends little on a message: requests come from a [`request::Template`], answers
//! are read no further than their code and number.
//!
//! It knows nothing of FolioMQ's insides, so it can be pointed at another RocketMQ-compatible server. Not here:
//! checking what was stored (the jepsen crate).

mod pull;
mod report;
mod request;
mod route;
mod send;

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

pub use report::Report;

/// Outstanding requests at most: a window's slots are numbers in memory, one histogram entry each.
const OUTSTANDING_MAX: usize = 1 << 20;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Bench {
    /// NameServers, with commas or semicolons.
    pub namesrv: String,
    /// The topic; created when it is missing.
    pub topic: String,
    /// Bytes of a message's body.
    pub size: usize,
    /// Requests outstanding, over all connections.
    pub outstanding: usize,
    /// Connections.
    pub connections: usize,
    /// How long to measure, after the warm-up.
    pub duration: Duration,
    /// How long to run before measuring.
    pub warmup: Duration,
}

impl Bench {
    fn check(&self) -> Result<()> {
        if self.outstanding == 0 || self.outstanding > OUTSTANDING_MAX {
            bail!("--outstanding is {}, expected 1 to {OUTSTANDING_MAX}", self.outstanding);
        }
        if self.connections == 0 || self.connections > self.outstanding {
            bail!(
                "--connections is {}, expected 1 to --outstanding ({})",
                self.connections,
                self.outstanding
            );
        }
        if self.size > folio_protocol::limits::BODY_BYTES_MAX {
            bail!(
                "--size is {}, a message is at most {} bytes",
                self.size,
                folio_protocol::limits::BODY_BYTES_MAX
            );
        }
        Ok(())
    }

    /// Sends as fast as `outstanding` allows.
    pub async fn send(self) -> Result<Report> {
        self.check()?;
        send::run(self).await
    }

    /// Reads all queues of the topic from their first message, then waits at the tail.
    pub async fn pull(self) -> Result<Report> {
        // The first messages are part of what is measured.
        let bench = Bench { warmup: Duration::ZERO, ..self };
        bench.check()?;
        pull::run(bench).await
    }

    fn clock(&self) -> Clock {
        let start = Instant::now() + self.warmup;
        Clock { start, end: start + self.duration }
    }
}

/// When measuring begins and ends.
#[derive(Debug, Clone, Copy)]
struct Clock {
    start: Instant,
    end: Instant,
}

impl Clock {
    fn measures(&self, at: Instant) -> bool {
        at >= self.start && at < self.end
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }
}

/// Shows progress on a terminal until `clock` is over; elsewhere it only waits.
async fn watch(clock: Clock, done: Arc<AtomicU64>) {
    let bar = if std::io::stderr().is_terminal() {
        let whole = clock.end.saturating_duration_since(Instant::now()).as_millis() as u64;
        let style =
            ProgressStyle::with_template("{bar:40} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(whole).with_style(style)
    } else {
        ProgressBar::hidden()
    };
    let begin = Instant::now();
    let (mut before, mut at) = (0, begin);
    while !clock.is_over() {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (now, count) = (Instant::now(), done.load(Ordering::Relaxed));
        let rate = (count - before) as f64 / now.duration_since(at).as_secs_f64();
        (before, at) = (count, now);
        bar.set_position(begin.elapsed().as_millis() as u64);
        bar.set_message(format!("{rate:.0} messages/s"));
    }
    bar.finish_and_clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bench() -> Bench {
        Bench {
            namesrv: "127.0.0.1:1".into(),
            topic: "t".into(),
            size: 10,
            outstanding: 8,
            connections: 2,
            duration: Duration::from_secs(1),
            warmup: Duration::ZERO,
        }
    }

    #[test]
    fn arguments_that_cannot_work_are_refused_by_name() {
        let refused = |bench: Bench| bench.check().unwrap_err().to_string();
        assert!(bench().check().is_ok());
        assert!(refused(Bench { outstanding: 0, ..bench() }).contains("--outstanding"));
        assert!(refused(Bench { connections: 9, ..bench() }).contains("--connections"));
        assert!(refused(Bench { size: 5 << 20, ..bench() }).contains("--size"));
    }
}
