//! Lines on standard output.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// Writes a line to standard output, as `println!` does; ends the process where nobody reads it any more (`folio ... | head`).
macro_rules! say {
    ($($text:tt)*) => { $crate::out::line(format_args!($($text)*)) };
}

/// Written by [`say!`].
pub(crate) fn line(text: Arguments<'_>) {
    if let Err(error) = writeln!(std::io::stdout(), "{text}") {
        if error.kind() != ErrorKind::BrokenPipe {
            drop(writeln!(std::io::stderr(), "folio: cannot write: {error}"));
        }
        std::process::exit(1);
    }
}
