//! Errors as a file system gives them.

use rustix::io::Errno;

pub(super) type Result<T> = std::result::Result<T, Errno>;

pub(super) fn io(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
