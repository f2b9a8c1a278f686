//! How often the log repeats what a stranger can cause: a hostile caller must not fill the disk with lines.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Between two lines of one kind.
const INTERVAL: Duration = Duration::from_secs(1);

/// Lines of one kind.
#[derive(Debug, Default)]
pub(crate) struct LogPace(Mutex<Option<Instant>>);

impl LogPace {
    /// Whether a line may be written now; if so, none more for a second.
    pub(crate) fn is_due(&self) -> bool {
        let mut last = self.0.lock();
        let now = Instant::now();
        if last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            return false;
        }
        *last = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_a_second() {
        let pace = LogPace::default();
        let mut lines = 0;
        for _ in 0..2_500 {
            lines += u32::from(pace.is_due());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(lines, 3);
    }
}
