//! Lines of the log about requests that were refused: at most one a second for each code, however many come.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A line about one code follows the one before no sooner than this.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// When each code was told last. As many as there are codes that are refused.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<BTreeMap<i32, Told>>);

struct Told {
    at: Instant,
    /// Refused since then.
    untold: u64,
}

impl Refusals {
    /// Counts a refusal. How many went untold before it, if it is time for a line.
    pub(super) fn note(&self, code: i32, now: Instant) -> Option<u64> {
        let mut told = self.0.lock();
        match told.get_mut(&code) {
            Some(told) if now.saturating_duration_since(told.at) < LINE_EVERY => {
                told.untold += 1;
                None
            }
            Some(told) => {
                told.at = now;
                Some(std::mem::take(&mut told.untold))
            }
            None => {
                told.insert(code, Told { at: now, untold: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_one_line_a_second_and_nothing_is_left_out_of_the_count() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(refusals.note(215, at(0)), Some(0));
        assert!((1..1_000).all(|ms| refusals.note(215, at(ms)).is_none()));
        assert_eq!(refusals.note(207, at(500)), Some(0), "another code has a line of its own");
        assert_eq!(refusals.note(215, at(1_000)), Some(999));
        assert_eq!(refusals.note(215, at(9_000)), Some(0));
    }
}
