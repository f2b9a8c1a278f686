//! A rate limiter for log lines that others cause: at most one line a second of each kind.
//!
//! A line for each bad frame, each refused connection or each request beyond a limit lets a client fill the disk. Each kind
//! of line has a [`LogRateLimiter`] of its own, which counts the lines that it suppressed.
//!
//! - `log_rate_limiter.I1`: two admitted lines of one kind are at least a second apart.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Between two lines of one kind.
const INTERVAL: Duration = Duration::from_secs(1);

/// The limiter of one kind of line.
#[derive(Debug, Default)]
pub struct LogRateLimiter(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    admitted_at: Option<Instant>,
    /// Suppressed since then.
    left_out: u64,
}

impl LogRateLimiter {
    /// A limiter that has admitted no line yet.
    pub const fn new() -> LogRateLimiter {
        LogRateLimiter(Mutex::new(State { admitted_at: None, left_out: 0 }))
    }

    /// Whether a line may be written now, and how many were suppressed since the last one.
    pub fn admit(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.0.lock();
        if state.admitted_at.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            state.left_out += 1;
            return None;
        }
        state.admitted_at = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn log_rate_limiter_i1_one_line_a_second_says_how_many_were_left_out() {
        let limiter = LogRateLimiter::new();
        let mut lines = Vec::new();
        for ms in 0..2_500 {
            if let Some(left_out) = limiter.admit() {
                lines.push((ms, left_out));
            }
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(lines, [(0, 0), (1_000, 999), (2_000, 999)]);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!((limiter.admit(), limiter.admit()), (Some(499), None));
        tokio::time::advance(INTERVAL).await;
        assert_eq!(limiter.admit(), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn many_threads_write_one_line() {
        let limiter = LogRateLimiter::new();
        let lines: usize = std::thread::scope(|scope| {
            let ask = || (0..100).filter(|_| limiter.admit().is_some()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!((lines, limiter.0.lock().left_out), (1, 399));
    }
}
