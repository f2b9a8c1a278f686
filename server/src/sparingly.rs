//! Lines of the log that others cause: at most one a second of each kind.
//!
//! A line for each bad frame, each refused connection or each request beyond a limit lets a client fill the disk. Each kind
//! has a [`Sparingly`] of its own; the next line says how many were left out.
//!
//! - `sparingly.I1`: two admitted events of one kind are at least a second apart.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long after a line the next one of its kind may follow.
const PAUSE: Duration = Duration::from_secs(1);

/// One kind of line. Free of locks: any thread may ask at any rate.
#[derive(Debug, Default)]
pub struct Sparingly {
    /// When the last line was admitted, in milliseconds since the process first asked, plus one; 0: never.
    last: AtomicU64,
    left_out: AtomicU64,
}

impl Sparingly {
    /// A kind that has had no line yet.
    pub const fn new() -> Self {
        Self { last: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// Whether the line may be written now, and how many were left out since the last one.
    pub fn admit(&self) -> Option<u64> {
        static SINCE: LazyLock<Instant> = LazyLock::new(Instant::now);
        self.admit_at(SINCE.elapsed())
    }

    /// The same at a time since the process's first question.
    fn admit_at(&self, now: Duration) -> Option<u64> {
        let now = now.as_millis() as u64 + 1;
        let last = self.last.load(Ordering::Relaxed);
        let is_early = last > 0 && now.saturating_sub(last) < PAUSE.as_millis() as u64;
        // Of several threads at once one writes the line.
        if is_early || self.last.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i1_one_line_a_second_says_how_many_were_left_out() {
        let kind = Sparingly::new();
        let at = |ms| kind.admit_at(Duration::from_millis(ms));
        assert_eq!(at(0), Some(0));
        assert_eq!((at(1), at(500), at(999)), (None, None, None));
        assert_eq!(at(1_000), Some(3));
        assert_eq!(at(1_001), None);
        assert_eq!(at(60_000), Some(1));
    }

    #[test]
    fn many_threads_write_one_line() {
        let kind = Sparingly::new();
        let lines: usize = std::thread::scope(|scope| {
            let ask = || (0..1_000).filter(|_| kind.admit_at(Duration::from_secs(5)).is_some()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(lines, 1);
        assert_eq!(kind.left_out.load(Ordering::Relaxed), 3_999);
    }
}
