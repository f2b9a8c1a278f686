//! Options that all loads have, and checks that several have.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use folio_protocol::{frame, names};

/// Connections a load may open: more than any server on one machine needs to be busy.
pub(crate) const CONNECTIONS_MAX: usize = 1_024;
/// Requests in flight on one connection: what tells them apart has room for more.
pub(crate) const OUTSTANDING_MAX: usize = 100_000;
/// Longest run, a week: a typing error should not hold a terminal for years.
pub(crate) const SECONDS_MAX: f64 = 604_800.0;

/// What all loads need.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// The NameServers; several with `;` or `,` are tried in turn.
    #[arg(short = 'n', long, value_name = "HOST:PORT", default_value = "127.0.0.1:9876")]
    pub namesrv: String,
    /// The topic. Loads that send create it if it is missing.
    #[arg(short, long)]
    pub topic: String,
    /// How long to measure.
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub seconds: f64,
    /// How request headers are written.
    #[arg(long, value_enum, default_value_t = Headers::Json)]
    pub serialization: Headers,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// How request headers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Headers {
    /// JSON, as most clients do.
    Json,
    /// RocketMQ's binary header.
    Rocketmq,
}

impl From<Headers> for frame::Serialization {
    fn from(headers: Headers) -> Self {
        match headers {
            Headers::Json => Self::Json,
            Headers::Rocketmq => Self::Rocketmq,
        }
    }
}

impl Common {
    /// The NameServers, one by one.
    pub(crate) fn namesrvs(&self) -> Vec<String> {
        let parts = self.namesrv.split([';', ',']).map(str::trim);
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    /// How long to measure.
    pub(crate) fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Refuses what cannot be done.
    pub(crate) fn check(&self) -> Result<()> {
        names::check_topic(&self.topic)?;
        for address in self.namesrvs() {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            ensure!(port.is_some(), "--namesrv {address}: expected HOST:PORT, as in 127.0.0.1:9876");
        }
        ensure!(!self.namesrvs().is_empty(), "--namesrv is empty: expected HOST:PORT, as in 127.0.0.1:9876");
        let seconds = self.seconds;
        ensure!(
            seconds > 0.0 && seconds <= SECONDS_MAX,
            "--seconds {seconds}: expected more than 0, at most {SECONDS_MAX}"
        );
        Ok(())
    }
}

/// Refuses a topic that no client may send to.
pub(crate) fn check_sendable(topic: &str) -> Result<()> {
    ensure!(names::is_sendable_topic(topic), "--topic {topic}: no client may send to it");
    Ok(())
}

/// Refuses a rate that is none.
pub(crate) fn check_rate(rate: f64) -> Result<()> {
    ensure!(rate.is_finite() && rate > 0.0, "--rate {rate}: expected more than 0 messages a second");
    Ok(())
}

/// Refuses a number that is 0 or above the limit.
pub(crate) fn within(key: &str, value: usize, max: usize) -> Result<()> {
    ensure!((1..=max).contains(&value), "{key} {value}: expected 1 to {max}");
    Ok(())
}
