//! What a load of pops is asked to be.

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use folio_protocol::limits::POP_MESSAGES_MAX;
use folio_protocol::names;

use crate::bench::common::{CONNECTIONS_MAX, Common, Headers, OUTSTANDING_MAX, within};

/// Longest time that popped messages stay invisible, ms: a day.
const INVISIBLE_MS_MAX: u64 = 24 * 3_600 * 1_000;

/// `folio bench pop`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PopOptions {
    /// Where, what and how long.
    #[command(flatten)]
    pub common: Common,
    /// Pops in flight, over all connections. A pop stays in flight until its messages are acknowledged.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub outstanding: usize,
    /// Connections. Default: 2, or fewer if fewer pops are in flight.
    #[arg(long, value_name = "N")]
    pub connections: Option<usize>,
    /// Messages asked for with each pop.
    #[arg(long, value_name = "N", default_value_t = POP_MESSAGES_MAX)]
    pub batch: usize,
    /// How long no other consumer is given a popped message. It comes again if it is not acknowledged in this time.
    #[arg(long, value_name = "MS", default_value_t = 60_000)]
    pub invisible_ms: u64,
    /// How messages are acknowledged.
    #[arg(long, value_enum, default_value_t = Acks::Each)]
    pub acks: Acks,
    /// The consumer group that pops. It is created if it is missing, and starts at the first message.
    #[arg(long, default_value = "folio_bench")]
    pub group: String,
    /// Wait for more messages instead of stopping where there are no more.
    #[arg(long)]
    pub follow: bool,
}

/// How messages are acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Acks {
    /// One request for each message, as RocketMQ's consumers do.
    Each,
    /// One request for the messages of a pop, as RocketMQ's proxy does.
    Batch,
}

impl Acks {
    /// The name, as in `--acks`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Acks::Each => "each",
            Acks::Batch => "batch",
        }
    }
}

impl PopOptions {
    /// How many connections.
    pub(crate) fn connections(&self) -> usize {
        self.connections.unwrap_or_else(|| self.outstanding.min(2))
    }

    /// Refuses what cannot be done.
    pub(crate) fn check(&self) -> Result<()> {
        self.common.check()?;
        names::check_group(&self.group)?;
        within("--outstanding", self.outstanding, OUTSTANDING_MAX)?;
        within("--connections", self.connections(), CONNECTIONS_MAX.min(self.outstanding))?;
        within("--batch", self.batch, POP_MESSAGES_MAX)?;
        let invisible = self.invisible_ms;
        let is_possible = (1..=INVISIBLE_MS_MAX).contains(&invisible);
        ensure!(is_possible, "--invisible-ms {invisible}: expected 1 to {INVISIBLE_MS_MAX}");
        ensure!(
            self.common.serialization == Headers::Json,
            "--serialization rocketmq: the binary header has no room for the request codes of pops: expected json"
        );
        Ok(())
    }
}
