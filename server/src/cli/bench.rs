//! `folio bench`: the load generator's command line.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::bench::{Bench, Report};

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Send messages, a fixed number outstanding.
    Send {
        #[command(flatten)]
        options: Options,
        /// Bytes of a message's body.
        #[arg(long, default_value_t = 1024)]
        size: usize,
        /// Requests outstanding, over all connections.
        #[arg(long, default_value_t = 256)]
        outstanding: usize,
    },
    /// Read all queues of a topic, from the first message on.
    Pull {
        #[command(flatten)]
        options: Options,
    },
}

#[derive(Debug, Args)]
struct Options {
    /// NameServers, with commas or semicolons; any RocketMQ-compatible server will do.
    #[arg(
        short = 'n',
        long = "namesrv",
        alias = "namesrv-addr",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:9876"
    )]
    namesrv: String,
    /// The topic; `send` creates it when it is missing.
    #[arg(long)]
    topic: String,
    /// How long to measure.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// How long to run before measuring.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    warmup: f64,
    /// Connections. Default: 4, or fewer if fewer requests are outstanding.
    #[arg(long)]
    connections: Option<usize>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Options {
    fn bench(&self, size: usize, outstanding: usize) -> Result<Bench> {
        let seconds = |name: &str, value: f64| match Duration::try_from_secs_f64(value) {
            Ok(duration) => Ok(duration),
            Err(_) => bail!("--{name} is {value}, expected a number of seconds"),
        };
        Ok(Bench {
            namesrv: self.namesrv.clone(),
            topic: self.topic.clone(),
            size,
            outstanding,
            connections: self.connections.unwrap_or(outstanding.clamp(1, 4)),
            duration: seconds("seconds", self.seconds)?,
            warmup: seconds("warmup", self.warmup)?,
        })
    }

    fn print(&self, report: &Report) -> Result<()> {
        if self.json {
            println!("{}", serde_json::to_string(report)?);
        } else {
            println!("{report}");
        }
        if report.acked == 0 {
            bail!("nothing was {}", if report.what == "send" { "acknowledged" } else { "received" });
        }
        Ok(())
    }
}

pub(super) async fn run(args: BenchArgs) -> Result<()> {
    match args.what {
        What::Send { options, size, outstanding } => {
            options.print(&options.bench(size, outstanding)?.send().await?)
        }
        // A topic has at most a few thousand queues; each has one pull under way.
        What::Pull { options } => options.print(&options.bench(0, 4096)?.pull().await?),
    }
}
