//! The binary `folio`: starts nodes and clusters, administers them, and measures them.
//!
//! What a node does is the crate `server`; all other commands talk to nodes as any client does.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

#[macro_use]
mod out;

mod bench;
mod client;
mod cluster;
mod commands;
mod pull;
mod status;

fn main() -> ExitCode {
    match commands::run(commands::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where this cannot be written either, the exit code has to do.
            drop(writeln!(std::io::stderr(), "folio: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
