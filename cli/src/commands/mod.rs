//! The command line of `folio`.
//!
//! Not here: what a node does (the crate `server`), how a cluster on one machine is run (`cluster/`).

mod bulk;
mod cluster;
mod dlq;
mod message;
mod node;
mod pop;
mod resend;
mod stored;
mod table;
mod target;
mod timer;
mod topic;
mod transaction;
mod walk;

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
    /// Show messages by id or key.
    Message(message::MessageArgs),
    /// List, show, resend and export dead letters.
    Dlq(dlq::DlqArgs),
    /// List open transactions, and resume those that were given up.
    Transaction(transaction::TransactionArgs),
    /// List popped messages that are not acknowledged yet.
    Pop(pop::PopArgs),
    /// Generate load and measure it.
    Bench(bench::BenchArgs),
}

/// Runs the command.
pub(crate) fn run(cli: Cli) -> Result<()> {
    let log = cli.log.as_deref();
    match cli.command {
        Command::Node(args) => node::run(args, log),
        Command::Cluster(args) => ask(log, cluster::run(args, cli.log.clone())),
        Command::Topic(args) => ask(log, topic::run(args)),
        Command::Timer(args) => ask(log, timer::run(args)),
        Command::Message(args) => ask(log, message::run(args)),
        Command::Dlq(args) => ask(log, dlq::run(args)),
        Command::Transaction(args) => ask(log, transaction::run(args)),
        Command::Pop(args) => ask(log, pop::run(args)),
        Command::Bench(args) => ask(log, bench::run(args)),
    }
}

/// Runs a command that logs warnings only, if nothing else is wanted.
fn ask(log: Option<&str>, work: impl Future<Output = Result<()>>) -> Result<()> {
    logging::start(log.or(Some("warn")))?;
    on_this_thread(work)
}

/// Commands need no more than one thread; and children live as long as the thread that started them.
fn on_this_thread(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(work)
}
