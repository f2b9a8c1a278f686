//! The command line of `folio`.
//!
//! Not here: what a node does (the crate `server`), how a cluster on one machine is run (`cluster/`).

mod cluster;
mod node;
mod table;
mod target;
mod timer;
mod topic;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use folio_server::logging;

use crate::bench;

/// FolioMQ: a message queue for RocketMQ clients. Three nodes, one commit log, nothing acknowledged lost.
#[derive(Debug, Parser)]
#[command(name = "folio", version, arg_required_else_help = true, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// What to log: error, warn, info, debug, or per module as in `folio_server=debug,info`. Default: FOLIO_LOG, then info.
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Try it:
  folio cluster                          three nodes on this machine, data under ./folio-data
  folio topic create orders              a topic; then point any RocketMQ client at 127.0.0.1:9876
  folio cluster status                   who leads, who is behind";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a cluster on this machine, or look at and change a running one.
    Cluster(cluster::ClusterArgs),
    /// Run one node of a cluster.
    Node(node::NodeArgs),
    /// List, create and delete topics.
    Topic(topic::TopicArgs),
    /// List and recall delayed messages that wait for their time.
    Timer(timer::TimerArgs),
    /// Generate load and measure it.
    Bench(bench::BenchArgs),
}

/// Runs the command.
pub(crate) fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Node(args) => node::run(args, cli.log.as_deref()),
        Command::Cluster(args) => {
            logging::start(cli.log.as_deref().or(Some("warn")))?;
            on_this_thread(cluster::run(args, cli.log))
        }
        Command::Bench(args) => {
            logging::start(cli.log.as_deref().or(Some("warn")))?;
            on_this_thread(bench::run(args))
        }
        Command::Timer(args) => {
            logging::start(cli.log.as_deref().or(Some("warn")))?;
            on_this_thread(timer::run(args))
        }
        Command::Topic(args) => {
            logging::start(cli.log.as_deref().or(Some("warn")))?;
            on_this_thread(topic::run(args))
        }
    }
}

/// Commands need no more than one thread; and children live as long as the thread that started them.
fn on_this_thread(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(work)
}
