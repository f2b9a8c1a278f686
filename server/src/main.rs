//! The binary `folio`.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use folio_server::cli::{self, Cli};

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where this cannot be written either, the exit code has to do.
            drop(writeln!(std::io::stderr(), "folio: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
