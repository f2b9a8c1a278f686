//! This program: where it is, and what it prints.

use std::fmt::Display;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// Where this very program is: the nodes run the same one.
pub(super) fn own_binary() -> Result<PathBuf> {
    std::env::current_exe().context("cannot find this program's own file")
}

/// Prints a line. One that cannot be printed, on a full disk or to nobody, must not end what looks after the nodes.
pub(super) fn tell(line: impl Display) {
    drop(writeln!(std::io::stdout(), "{line}"));
}
