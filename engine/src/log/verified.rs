//! Which stretches of the log were read and verified lately, so that a record is checksummed once for many reads.
//!
//! It remembers, per 64 KiB of the log, the last verified record that lies there; what it forgets is verified again.
//! Damage that comes to the disk later is not its business: the page cache holds what was verified, and what is read
//! from the disk again is looked at by the scrub.

use parking_lot::Mutex;

/// Log bytes that share one place.
const STRIDE_BYTES: u64 = 64 << 10;
/// Places: enough for 2 GiB of log, half a MiB of memory.
const PLACES: usize = 32 << 10;

/// Verified records as (start, end).
pub(super) struct Verified {
    places: Mutex<Vec<(u64, u64)>>,
}

impl Default for Verified {
    fn default() -> Verified {
        Verified { places: Mutex::new(vec![(0, 0); PLACES]) }
    }
}

impl Verified {
    /// Whether all of the bytes from `position` on lie inside one verified record.
    pub(super) fn covers(&self, position: u64, length: usize) -> bool {
        let (start, end) = self.places.lock()[place(position)];
        start <= position && position + length as u64 <= end
    }

    /// Notes that the record from `start` to `end` is whole.
    pub(super) fn note(&self, start: u64, end: u64) {
        let mut places = self.places.lock();
        let mut at = start - start % STRIDE_BYTES;
        while at < end {
            places[place(at)] = (start, end);
            at += STRIDE_BYTES;
        }
    }

    /// Forgets everything: records went away, or one was found damaged.
    pub(super) fn forget(&self) {
        self.places.lock().fill((0, 0));
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
