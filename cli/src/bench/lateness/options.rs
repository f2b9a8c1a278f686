//! What a measurement of lateness is asked to be.

use anyhow::{Result, ensure};
use clap::Args;
use folio_protocol::limits::BODY_BYTES_MAX;

use crate::bench::common::{CONNECTIONS_MAX, Common, OUTSTANDING_MAX, check_rate, check_sendable, within};

/// Longest delay: RocketMQ's `timerMaxDelaySec`, three days. A server may allow less.
const DELAY_MS_MAX: u64 = 3 * 24 * 3_600 * 1_000;
/// Messages that become due at once. More would take longer to send than a person waits.
const COUNT_MAX: u64 = 100_000_000;

/// `folio bench lateness`.
#[derive(Debug, Clone, Args)]
pub(crate) struct LatenessOptions {
    /// Where, and how long to send.
    #[command(flatten)]
    pub common: Common,
    /// How long each message waits. With --due-at-once: how long after the start all of them are due; sending them must
    /// take less.
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    pub delay_ms: u64,
    /// Messages a second.
    #[arg(long, value_name = "R", default_value_t = 1_000.0, conflicts_with = "due_at_once")]
    pub rate: f64,
    /// Make all messages due at one moment: measures how fast they are delivered then. --seconds means nothing here.
    #[arg(long)]
    pub due_at_once: bool,
    /// How many messages are due at one moment.
    #[arg(long, value_name = "N", default_value_t = 10_000, requires = "due_at_once")]
    pub count: u64,
    /// Bytes of a message's body.
    #[arg(long, value_name = "BYTES", default_value_t = 1_024)]
    pub size: usize,
    /// Sends in flight at most, over all connections.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub outstanding: usize,
    /// Connections that send, and as many that pull. Default: 4, or fewer if fewer messages are in flight.
    #[arg(long, value_name = "N")]
    pub connections: Option<usize>,
    /// Send to the first N queues of each broker, and create a missing topic with N. Default: all of the
    /// route, 8 in a new topic.
    #[arg(long, value_name = "N")]
    pub queues: Option<u32>,
    /// How long after the last due time a message counts as missing.
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub timeout: f64,
    /// The consumer group that pulls.
    #[arg(long, default_value = "folio_bench")]
    pub group: String,
}

impl LatenessOptions {
    /// How many connections send.
    pub(crate) fn connections(&self) -> usize {
        self.connections.unwrap_or_else(|| self.outstanding.min(4))
    }

    /// How many messages are sent.
    pub(crate) fn messages(&self) -> u64 {
        if self.due_at_once { self.count } else { (self.rate * self.common.seconds).ceil() as u64 }
    }

    /// Refuses what cannot be done.
    pub(crate) fn check(&self) -> Result<()> {
        self.common.check()?;
        check_sendable(&self.common.topic)?;
        check_rate(self.rate)?;
        folio_protocol::names::check_group(&self.group)?;
        within("--size", self.size, BODY_BYTES_MAX)?;
        within("--outstanding", self.outstanding, OUTSTANDING_MAX)?;
        within("--connections", self.connections(), CONNECTIONS_MAX.min(self.outstanding))?;
        let (delay, count, timeout) = (self.delay_ms, self.count, self.timeout);
        ensure!((1..=DELAY_MS_MAX).contains(&delay), "--delay-ms {delay}: expected 1 to {DELAY_MS_MAX}");
        ensure!((1..=COUNT_MAX).contains(&count), "--count {count}: expected 1 to {COUNT_MAX}");
        ensure!((0.0..=86_400.0).contains(&timeout), "--timeout {timeout}: expected 0 to 86400 seconds");
        if let Some(queues) = self.queues {
            within("--queues", queues as usize, 65_536)?;
        }
        Ok(())
    }
}
