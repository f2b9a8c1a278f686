//! Which records were read and verified lately, so that a record is checksummed once for many reads.
//!
//! It remembers where each of them starts and ends, for two seconds; what it forgets is verified again. What is verified
//! is in the page cache, and stays what it is while it is there. Readers that come to a record together, as those of the
//! queues that share it do, verify it once: one of them does, the others wait for it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Records remembered at most: 1 MiB of memory. Two seconds of reading are some thousands of 128 KiB.
const RECORDS_MAX: usize = 16 << 10;
/// Stretches of the log that are verified by one reader at a time; those of equal remainder share a turn, which are so
/// far apart that a reader of what is new hardly ever waits for one of what is old, and so for the disk.
const STRETCH_BYTES: u64 = 1 << 20;
const TURNS: usize = 4096;

/// How long it remembers: pages may leave memory and come back from a disk that rotted since.
const TRUSTED: Duration = Duration::from_secs(2);

/// Records known to be whole.
pub(super) struct Verified {
    /// The end of each and when it was verified, by its start.
    records: Mutex<BTreeMap<u64, (u64, Instant)>>,
    turns: [Mutex<()>; TURNS],
}

impl Default for Verified {
    fn default() -> Verified {
        Verified { records: Mutex::default(), turns: [const { Mutex::new(()) }; TURNS] }
    }
}

impl Verified {
    /// Makes sure that the bytes from `position` on lie inside one whole record: `verify` reads it and says where it
    /// starts and ends. It is not called where that is known, or comes out while another reader finds it.
    pub(super) fn ensure<E>(
        &self,
        position: u64,
        length: usize,
        verify: impl FnOnce() -> Result<(u64, u64), E>,
    ) -> Result<(), E> {
        if self.covers(position, length) {
            return Ok(());
        }
        let _turn = self.turns[(position / STRETCH_BYTES) as usize % TURNS].lock();
        if self.covers(position, length) {
            return Ok(());
        }
        let (start, end) = verify()?;
        self.note(start, end);
        Ok(())
    }

    fn covers(&self, position: u64, length: usize) -> bool {
        let records = self.records.lock();
        let around = records.range(..=position).next_back();
        around.is_some_and(|(_, (end, at))| position + length as u64 <= *end && at.elapsed() < TRUSTED)
    }

    fn note(&self, start: u64, end: u64) {
        let mut records = self.records.lock();
        if records.len() >= RECORDS_MAX {
            records.retain(|_, (_, at)| at.elapsed() < TRUSTED);
        }
        if records.len() >= RECORDS_MAX {
            records.clear();
        }
        records.insert(start, (end, Instant::now()));
    }

    /// Forgets everything: records went away, or one was found damaged.
    pub(super) fn forget(&self) {
        self.records.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_verified_record_covers_what_lies_inside_it_and_nothing_else() {
        let verified = Verified::default();
        assert!(!verified.covers(0, 1));
        verified.note(70_000, 400_000);
        assert!(verified.covers(70_000, 330_000) && verified.covers(300_000, 10));
        assert!(!verified.covers(69_999, 2) && !verified.covers(399_999, 2) && !verified.covers(400_000, 1));
        verified.forget();
        assert!(!verified.covers(300_000, 1));
    }

    #[test]
    fn records_side_by_side_do_not_push_each_other_out() {
        let verified = Verified::default();
        let starts: Vec<u64> = (0..1000).map(|record| record * 30_000).collect();
        starts.iter().for_each(|start| verified.note(*start, start + 30_000));
        assert!(starts.iter().all(|start| verified.covers(*start, 30_000)));
        assert!(!verified.covers(29_999, 2), "bytes of two records");
    }

    #[test]
    fn readers_that_come_to_a_record_together_verify_it_once() {
        let (verified, start, times) = (Verified::default(), Barrier::new(8), AtomicU32::new(0));
        let read = |reader: u64| {
            start.wait();
            verified.ensure(100 + reader, 10, || {
                times.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
                Ok::<_, ()>((50, 400))
            })
        };
        std::thread::scope(|scope| {
            (0..8).for_each(|reader| drop(scope.spawn(move || read(reader))));
        });
        assert_eq!(times.into_inner(), 1);
    }

    #[test]
    fn a_record_that_is_not_whole_is_looked_at_by_each_reader() {
        let verified = Verified::default();
        assert_eq!(verified.ensure(100, 10, || Err("damaged")), Err("damaged"));
        assert_eq!(verified.ensure(100, 10, || Ok::<_, &str>((50, 400))), Ok(()));
        assert_eq!(verified.ensure(100, 10, || Err("known to be whole")), Ok(()));
    }

    #[test]
    fn what_it_remembers_is_bounded() {
        let verified = Verified::default();
        let most = RECORDS_MAX as u64;
        (0..=most).for_each(|record| verified.note(record * 100, record * 100 + 100));
        assert!(verified.records.lock().len() <= RECORDS_MAX && verified.covers(most * 100, 100));
    }
}
