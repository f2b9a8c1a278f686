//! The one thing the simulation takes from under its process instead of through a seam: the system's random bytes.
//!
//! tokio draws the order of a `select!` and of a channel's waiters, and std the order of a hash map, from seeds that
//! begin with `getrandom`. Defining that function here makes all of them follow from the simulation's seed: std and the
//! crates that ask the C library find this one. Only this test program has it.
//!
//! The bytes are the same for every call, so that it does not matter how many threads asked before: a run is one thread,
//! started after [`seed`], in a process of its own.

use std::sync::atomic::{AtomicU64, Ordering};

static SEED: AtomicU64 = AtomicU64::new(0);

/// What the system's random bytes follow from, for threads that start from now on.
pub(crate) fn seed(seed: u64) {
    SEED.store(seed, Ordering::SeqCst);
}

/// The C library's `getrandom`, without randomness.
#[expect(unsafe_code, reason = "replacing a function of the C library cannot be said in safe Rust")]
#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    let mut random = folio_engine::disk::sim::SeededChoice::new(SEED.load(Ordering::SeqCst));
    for at in 0..length {
        let byte = random.below(256) as u8;
        // SAFETY: the caller's buffer has room for `length` bytes, by the contract of getrandom(2).
        unsafe { buffer.add(at).write(byte) };
    }
    length as isize
}
