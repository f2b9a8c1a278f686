//! Which stretches of the log were read and verified lately, so that a record is checksummed once for many reads.
//!
//! It remembers, per 64 KiB of the log, the last verified record that lies there, for two seconds; what it forgets is
//! verified again. What is verified is in the page cache, and stays what it is while it is there.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Log bytes that share one place.
const STRIDE_BYTES: u64 = 64 << 10;
/// Places: enough for 2 GiB of log, half a MiB of memory.
const PLACES: usize = 32 << 10;

/// How long it remembers: pages may leave memory and come back from a disk that rotted since.
const TRUSTED: Duration = Duration::from_secs(2);

/// Verified records as (start, end).
pub(super) struct Verified {
    places: Mutex<Places>,
}

struct Places {
    records: Vec<(u64, u64)>,
    since: Instant,
}

impl Default for Verified {
    fn default() -> Verified {
        let places = Places { records: vec![(0, 0); PLACES], since: Instant::now() };
        Verified { places: Mutex::new(places) }
    }
}

impl Verified {
    /// Whether all of the bytes from `position` on lie inside one verified record.
    pub(super) fn covers(&self, position: u64, length: usize) -> bool {
        let places = self.places.lock();
        let (start, end) = places.records[place(position)];
        start <= position && position + length as u64 <= end && places.since.elapsed() < TRUSTED
    }

    /// Notes that the record from `start` to `end` is whole.
    pub(super) fn note(&self, start: u64, end: u64) {
        let mut places = self.places.lock();
        if places.since.elapsed() >= TRUSTED {
            places.forget();
        }
        let mut at = start - start % STRIDE_BYTES;
        while at < end {
            places.records[place(at)] = (start, end);
            at += STRIDE_BYTES;
        }
    }

    /// Forgets everything: records went away, or one was found damaged.
    pub(super) fn forget(&self) {
        self.places.lock().forget();
    }
}

impl Places {
    fn forget(&mut self) {
        self.records.fill((0, 0));
        self.since = Instant::now();
    }
}

fn place(position: u64) -> usize {
    ((position / STRIDE_BYTES) % PLACES as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verified_record_covers_what_lies_inside_it_and_nothing_else() {
        let verified = Verified::default();
        assert!(!verified.covers(0, 1));
        verified.note(70_000, 400_000);
        assert!(verified.covers(70_000, 330_000) && verified.covers(300_000, 10));
        assert!(!verified.covers(69_999, 2) && !verified.covers(399_999, 2));
        let around = STRIDE_BYTES * PLACES as u64;
        assert!(!verified.covers(70_000 + around, 1), "another stretch that shares the place");
        verified.note(100_000 + around, 100_010 + around);
        assert!(!verified.covers(70_000, 1) && verified.covers(300_000, 1), "the newest in a place counts");
        verified.forget();
        assert!(!verified.covers(300_000, 1));
    }
}
