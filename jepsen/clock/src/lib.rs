//! Moves the system clock of one process: preloaded (`LD_PRELOAD`), it answers `clock_gettime`,
//! `gettimeofday` and `time` in the C library's place.
//!
//! The environment's `FOLIO_CLOCK` names a file of 8 bytes, a signed number of nanoseconds in the
//! machine's byte order; it is mapped, so what the harness writes there counts from the next call
//! on. Only the real-time clock moves: the monotonic one never jumps on a real machine either.
//! Without that file the time is what the kernel says.
//!
//! It allocates nothing and calls nothing of Rust's runtime: it may be called before `main`.

use std::ptr::null_mut;
use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicU8, Ordering};

use libc::{c_int, c_long, clockid_t, time_t, timespec, timeval};

const NANOS: i64 = 1_000_000_000;

/// Nothing was looked for yet.
const UNASKED: u8 = 0;
/// [`OFFSET`] is all there will be: the map, or null when there is no file.
const ASKED: u8 = 1;

static STATE: AtomicU8 = AtomicU8::new(UNASKED);
static OFFSET: AtomicPtr<AtomicI64> = AtomicPtr::new(null_mut());

/// Nanoseconds the clock is moved by.
fn offset() -> i64 {
    if STATE.load(Ordering::Acquire) == UNASKED {
        // Two threads may map it at once: both maps show the same file, one of them is kept.
        OFFSET.store(map(), Ordering::Release);
        STATE.store(ASKED, Ordering::Release);
    }
    let shared = OFFSET.load(Ordering::Acquire);
    if shared.is_null() {
        return 0;
    }
    #[expect(unsafe_code, reason = "the map is shared with another process")]
    // SAFETY: not null, so it is the start of a page mapped for good by `map`: 8 bytes, aligned, and
    // only ever read and written as a whole.
    unsafe {
        (*shared).load(Ordering::Relaxed)
    }
}

/// Maps the file that `FOLIO_CLOCK` names; null when there is none or it is too short to be read.
#[expect(unsafe_code, reason = "calls to the C library")]
fn map() -> *mut AtomicI64 {
    const BYTES: usize = size_of::<i64>();
    // SAFETY: the name is a C string; what getenv returns is one too, or null, and is not kept. The
    // descriptor is ours and checked before use. A file shorter than 8 bytes is not mapped, and the
    // harness never shortens it.
    unsafe {
        let path = libc::getenv(c"FOLIO_CLOCK".as_ptr());
        if path.is_null() {
            return null_mut();
        }
        let file = libc::open(path, libc::O_RDONLY | libc::O_CLOEXEC);
        if file < 0 {
            return null_mut();
        }
        let long_enough = libc::lseek(file, 0, libc::SEEK_END) >= BYTES as libc::off_t;
        let at = if long_enough {
            libc::mmap(null_mut(), BYTES, libc::PROT_READ, libc::MAP_SHARED, file, 0)
        } else {
            libc::MAP_FAILED
        };
        libc::close(file);
        if at == libc::MAP_FAILED { null_mut() } else { at.cast() }
    }
}

/// The kernel's time, moved when it is the real-time clock.
fn now(clock: clockid_t, at: &mut timespec) -> c_int {
    #[expect(unsafe_code, reason = "the system call itself, past the function this one replaces")]
    // SAFETY: `at` is a valid timespec to write to.
    let done = unsafe { libc::syscall(libc::SYS_clock_gettime, c_long::from(clock), at as *mut timespec) };
    if done == 0 && (clock == libc::CLOCK_REALTIME || clock == libc::CLOCK_REALTIME_COARSE) {
        let nanos = (at.tv_sec.saturating_mul(NANOS) + at.tv_nsec).saturating_add(offset());
        *at = timespec { tv_sec: nanos.div_euclid(NANOS), tv_nsec: nanos.rem_euclid(NANOS) };
    }
    done as c_int
}

/// `clock_gettime(2)`.
///
/// # Safety
/// As in C: `at` is null or points to a timespec that may be written.
#[expect(unsafe_code, reason = "it takes the place of a C function")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, at: *mut timespec) -> c_int {
    // SAFETY: the caller's promise.
    match unsafe { at.as_mut() } {
        Some(at) => now(clock, at),
        None => -1,
    }
}

/// `gettimeofday(2)`; the time zone is left alone, as the kernel does nowadays.
///
/// # Safety
/// As in C: `at` is null or points to a timeval that may be written.
#[expect(unsafe_code, reason = "it takes the place of a C function")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(at: *mut timeval, _zone: *mut libc::c_void) -> c_int {
    let mut exact = timespec { tv_sec: 0, tv_nsec: 0 };
    let done = now(libc::CLOCK_REALTIME, &mut exact);
    // SAFETY: the caller's promise.
    if let Some(at) = unsafe { at.as_mut() } {
        *at = timeval { tv_sec: exact.tv_sec, tv_usec: exact.tv_nsec / 1000 };
    }
    done
}

/// `time(2)`.
///
/// # Safety
/// As in C: `at` is null or points to a time that may be written.
#[expect(unsafe_code, reason = "it takes the place of a C function")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(at: *mut time_t) -> time_t {
    let mut exact = timespec { tv_sec: 0, tv_nsec: 0 };
    let done = now(libc::CLOCK_REALTIME, &mut exact);
    let seconds = if done == 0 { exact.tv_sec } else { -1 };
    // SAFETY: the caller's promise.
    if let Some(at) = unsafe { at.as_mut() } {
        *at = seconds;
    }
    seconds
}
