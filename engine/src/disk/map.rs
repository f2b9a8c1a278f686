//! The read-only map of a whole file: the one module of this crate with `unsafe` in it.
//!
//! It does not write, grow or remap; [`super::real`] decides when a new map is due.

use std::fs::File;
use std::io;

use bytes::Bytes;
use memmap2::{Mmap, MmapOptions};

/// Maps the first `len` bytes of `file`. The map lives until the last clone or slice of the result is gone,
/// also when the file is closed or unlinked before.
pub(super) fn map(file: &File, len: usize) -> io::Result<Bytes> {
    Ok(Bytes::from_owner(map_whole(file, len)?))
}

#[expect(unsafe_code, reason = "mapping a file is the one thing that cannot be said in safe Rust")]
fn map_whole(file: &File, len: usize) -> io::Result<Mmap> {
    // SAFETY: the map is read-only and `len` does not exceed the file's length (the caller has just read it); the file
    // is never shortened while mapped (`disk.I2`, and the directory is locked against other processes), so no access
    // lies beyond it. A page whose sector the device has lost raises SIGBUS, which ends the process: not unsound, and
    // the start, the scrub and mends copy instead and meet an error. Bytes handed out are those of finished records,
    // which are not written again; the one exception is a truncated, uncommitted suffix, whose bytes turn to zero: its
    // readers check a crc over what they use.
    unsafe { MmapOptions::new().len(len).map(file) }
}
