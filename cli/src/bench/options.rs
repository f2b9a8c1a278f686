//! What a load is asked to be.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, Subcommand, ValueEnum};
use folio_protocol::limits::{BODY_BYTES_MAX, PULL_MESSAGES_MAX};
use folio_protocol::names;

use super::common::{
    CONNECTIONS_MAX, Common, OUTSTANDING_MAX, SECONDS_MAX, check_rate, check_sendable, within,
};
use super::kind::Kind;
use super::lateness::options::LatenessOptions;
use super::pop::options::PopOptions;

/// Connections of a send that names no number.
const CONNECTIONS: usize = 4;
/// Topics that one load sends to: each is made first, one after the other.
const TOPICS_MAX: usize = 10_000;
/// `folio bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// What to do.
    #[command(subcommand)]
    pub load: Load,
}

/// The loads.
#[derive(Debug, Subcommand)]
pub(crate) enum Load {
    /// Send messages: as many in flight as --outstanding says, or as many a second as --rate says.
    Send(SendOptions),
    /// Pull messages from all queues as fast as possible.
    Pull(PullOptions),
    /// Pop messages and acknowledge them, as fast as possible.
    Pop(PopOptions),
    /// Send delayed messages, pull them at the same time, and say how late they became visible by this machine's clock.
    Lateness(LatenessOptions),
}

/// `folio bench send`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SendOptions {
    /// Where, what and how long.
    #[command(flatten)]
    pub common: Common,
    /// What is sent. A transaction counts once its message is committed: its latency is that of both requests.
    #[arg(long, value_enum, default_value_t)]
    pub kind: Kind,
    /// How long messages of --kind delayed wait.
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    pub delay_ms: u64,
    /// Bytes of a message's body.
    #[arg(long, value_name = "BYTES", default_value_t = 1_024)]
    pub size: usize,
    /// How long to run before measuring.
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    pub warmup: f64,
    /// Messages in flight, over all connections.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub outstanding: usize,
    /// Connections. Default: 4, or fewer if fewer messages are in flight.
    #[arg(long, value_name = "N")]
    pub connections: Option<usize>,
    /// Send to the first N queues of each broker, and create a missing topic with N. Default: all of the
    /// route, 8 in a new topic.
    #[arg(long, value_name = "N")]
    pub queues: Option<u32>,
    /// Send to N topics in turn: --topic with -1 to -N behind it.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub topics: usize,
    /// Messages a second (an open loop): latency then counts from when a message was due, not from when
    /// it could be sent.
    #[arg(long, value_name = "R")]
    pub rate: Option<f64>,
}

/// `folio bench pull`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PullOptions {
    /// Where, what and how long.
    #[command(flatten)]
    pub common: Common,
    /// Where to begin: at each queue's first message and to its end, or at its end, waiting for more.
    #[arg(long, value_enum, default_value_t = Begin::Min)]
    pub from: Begin,
    /// Messages asked for with each pull.
    #[arg(long, value_name = "N", default_value_t = PULL_MESSAGES_MAX)]
    pub batch: usize,
    /// Connections; each queue has one pull in flight on one of them.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub connections: usize,
    /// The consumer group that pulls.
    #[arg(long, default_value = "folio_bench")]
    pub group: String,
    /// Wait for more messages at the end of the queues instead of stopping there.
    #[arg(long)]
    pub follow: bool,
}

/// Where pulls begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Begin {
    /// The first message there is.
    Min,
    /// The next message to come.
    End,
}

impl SendOptions {
    /// How long to run before measuring.
    pub(crate) fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup)
    }

    /// The names of the topics.
    pub(crate) fn topic_names(&self) -> Vec<String> {
        let topic = &self.common.topic;
        match self.topics {
            1 => vec![topic.clone()],
            topics => (1..=topics).map(|number| format!("{topic}-{number}")).collect(),
        }
    }

    /// How many connections.
    pub(crate) fn connections(&self) -> usize {
        self.connections.unwrap_or(CONNECTIONS.min(self.outstanding))
    }

    /// Refuses what cannot be done.
    pub(crate) fn check(&self) -> Result<()> {
        self.common.check()?;
        within("--size", self.size, BODY_BYTES_MAX)?;
        within("--outstanding", self.outstanding, OUTSTANDING_MAX)?;
        within("--connections", self.connections(), CONNECTIONS_MAX)?;
        within("--topics", self.topics, TOPICS_MAX)?;
        self.topic_names().iter().try_for_each(|topic| names::check_topic(topic))?;
        let warmup = self.warmup;
        ensure!(
            (0.0..=SECONDS_MAX).contains(&warmup),
            "--warmup {warmup}: expected 0 or more, at most {SECONDS_MAX}"
        );
        check_sendable(&self.common.topic)?;
        ensure!(
            self.outstanding >= self.connections(),
            "--outstanding {} is less than one message for each of {} connections: lower --connections",
            self.outstanding,
            self.connections()
        );
        if let Some(queues) = self.queues {
            within("--queues", queues as usize, 65_536)?;
        }
        self.rate.map_or(Ok(()), check_rate)
    }
}

impl PullOptions {
    /// Refuses what cannot be done.
    pub(crate) fn check(&self) -> Result<()> {
        self.common.check()?;
        names::check_group(&self.group)?;
        within("--batch", self.batch, PULL_MESSAGES_MAX)?;
        within("--connections", self.connections, CONNECTIONS_MAX)
    }

    /// Whether the end of the queues is waited at.
    pub(crate) fn follows(&self) -> bool {
        self.follow || self.from == Begin::End
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn refusal(arguments: &str) -> String {
        let line = std::iter::once("bench").chain(arguments.split(' '));
        let checked = match Line::try_parse_from(line).unwrap().bench.load {
            Load::Send(options) => options.check(),
            Load::Pull(options) => options.check(),
            Load::Pop(options) => options.check(),
            Load::Lateness(options) => options.check(),
        };
        checked.map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn ordinary_arguments_pass() {
        assert_eq!(refusal("send --namesrv a:1;b:2 --topic t --size 1024 --outstanding 64 --seconds 5"), "");
        assert_eq!(refusal("send -t t --outstanding 1"), "");
        assert_eq!(refusal("send -n 127.0.0.1:9876 -t t --rate 1000 --serialization rocketmq --json"), "");
        assert_eq!(refusal("pull --topic t --from end --seconds 1"), "");
        assert_eq!(
            refusal("pop -t t --outstanding 1 --batch 1 --acks batch --invisible-ms 500 --follow"),
            ""
        );
        assert_eq!(refusal("lateness -t t --rate 100 --delay-ms 50 --seconds 3"), "");
        assert_eq!(refusal("lateness -t t --due-at-once --count 1000 --outstanding 1"), "");
    }

    #[test]
    fn a_refusal_names_the_argument_and_what_is_expected() {
        assert_eq!(refusal("send -t t --size 0"), "--size 0: expected 1 to 4194304");
        assert!(refusal("send -t t --outstanding 2 --connections 3").contains("lower --connections"));
        assert!(refusal("send -t t --seconds 0").starts_with("--seconds 0: expected more than 0"));
        assert!(refusal("send -t t --seconds NaN").starts_with("--seconds NaN"));
        assert!(refusal("send -t t --warmup inf").starts_with("--warmup inf"));
        assert!(refusal("send -t t --rate 0").starts_with("--rate 0"));
        assert_eq!(refusal("send -t t --topics 10001"), "--topics 10001: expected 1 to 10000");
        assert!(refusal("send -t a.b").contains("illegal characters"));
        assert!(refusal("send -t SCHEDULE_TOPIC_XXXX").contains("no client may send"));
        assert!(refusal("pull -t t -n nowhere").starts_with("--namesrv nowhere: expected HOST:PORT"));
        assert!(refusal("pull -t t -n ;").starts_with("--namesrv is empty"));
        assert_eq!(refusal("pop -t t --batch 33"), "--batch 33: expected 1 to 32");
        assert!(refusal("pop -t t --serialization rocketmq").ends_with("expected json"));
        assert!(refusal("pop -t t --invisible-ms 0").starts_with("--invisible-ms 0: expected 1 to"));
        assert!(refusal("lateness -t t --delay-ms 0").starts_with("--delay-ms 0: expected 1 to"));
        assert!(refusal("lateness -t t --due-at-once --count 0").starts_with("--count 0: expected 1 to"));
        assert!(refusal("lateness -t t --timeout NaN").starts_with("--timeout NaN"));
        assert!(refusal("pull -t t --batch 1000").starts_with("--batch 1000: expected 1 to 160"));
    }

    #[test]
    fn name_servers_are_split_at_either_separator() {
        let line = Line::try_parse_from(["bench", "pull", "-t", "t", "-n", "a:1; b:2,c:3;"]).unwrap();
        let Load::Pull(options) = line.bench.load else { panic!("not a pull") };
        assert_eq!(options.common.namesrvs(), ["a:1", "b:2", "c:3"]);
        assert!(!options.follows());
    }
}
