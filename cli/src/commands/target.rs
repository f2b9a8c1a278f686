//! What commands that ask a running cluster have in common.

use std::time::Duration;

use clap::Args;

/// What a command waits for one node's answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Which cluster a command talks to, and how it prints.
#[derive(Debug, Clone, Args)]
pub(super) struct Target {
    /// A NameServer or broker address of any node of the cluster; several with commas are tried in order.
    #[arg(short = 'n', long, alias = "namesrv", value_name = "HOST:PORT", default_value = "127.0.0.1:9876")]
    pub(super) namesrv_addr: String,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(super) json: bool,
}
