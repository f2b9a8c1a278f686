//! `folio node`: one node in this process.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use folio_server::config::{EXAMPLE, NodeConfig};
use folio_server::net::descriptors;
use folio_server::{logging, node, panics, private_files};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    /// The node's configuration: TOML if it ends in .toml, else a RocketMQ broker.conf in DLedger mode.
    #[arg(short = 'c', long, value_name = "FILE", required_unless_present = "example")]
    config: Option<PathBuf>,
    /// Print an example configuration with every key and leave.
    #[arg(long)]
    example: bool,
    /// End when this process ends: `folio cluster` sets it.
    #[arg(long, hide = true, value_name = "PID")]
    parent: Option<i32>,
}

pub(super) fn run(args: NodeArgs, log: Option<&str>) -> Result<()> {
    let (false, Some(file)) = (args.example, args.config) else {
        print!("{EXAMPLE}");
        return Ok(());
    };
    private_files::mask();
    logging::start(log)?;
    panics::end_the_process().context("cannot start a thread")?;
    if let Some(parent) = args.parent {
        follow(parent)?;
    }
    let mut config = NodeConfig::read(&file)?;
    config.net.fit_open_files(descriptors::raise());
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(config.workers).thread_name("folio").enable_all();
    let runtime = runtime.build().context("cannot start the runtime")?;
    let ended = runtime.block_on(node::run(config));
    // Nothing is left to wait for: what must be on disk is.
    runtime.shutdown_background();
    ended
}

/// Ends this process with its parent, also if the parent is gone already.
fn follow(parent: i32) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM)).context("cannot follow the parent process")?;
    if getppid() != Pid::from_raw(parent) {
        bail!("process {parent}, which started this node, is gone");
    }
    Ok(())
}
