//! Defects on purpose, so that the harness can show that it finds them: a checker that never failed proves nothing.
//!
//! With the cargo feature `planted` the environment variable [`VARIABLE`] names one of [`NAMES`], and that one promise is
//! broken, each in one small place. Without the feature, which no crate has by default (a house rule watches that),
//! [`is`] is a constant `false` and the code behind it is not compiled in. The unit tests of this crate have the defects
//! too, for as long as a test asks for one: see `with`.
//!
//! | name | the promise it breaks | where |
//! |---|---|---|
//! | `ack-before-sync` | an acknowledgement comes after fdatasync | `log/writer.rs` |
//! | `vote-before-log` | a vote is durable after all that was appended before it (`log.I4`) | `log/writer.rs` |
//! | `forget-undo` | a truncation gives the queue offsets back (`stamp.I2`) | `stamp.rs` |
//! | `ack-before-majority` | an acknowledgement comes after a majority has the record | raft, `proposer/feeder.rs` |
//! | `serve-unapplied` | readers see what is committed and applied, only | raft, `log_store.rs` |
//! | `skip-truncation` | a follower drops what its leader does not have | raft, `log_store.rs` |
//! | `later-start-leads` | a new replica gets every retained message (`snapshots.I1`) | raft, `state_machine.rs`, `snapshots/damages.rs` |
//! | `purge-poisons` | a full disk ends nothing (`log.I11`, `mark.I2`) | `log/mark.rs` |
//! | `deleted-comes-back` | what is deleted with its topic is not served again (`min_offsets.I1`) | raft, `state_machine/commands.rs` |
//! | `locks-by-wall-clock` | an orderly lock lives for the time that really passes (`locks.I1`) | raft, `group/mod.rs` |
//! | `retry-stores-again` | a client's retry is answered with the first one's place | raft, `proposer/repeat.rs` |
//! | `repeat-by-key` | a repeat that is no retry is stored (`dedup.I5`) | raft, `proposer/repeat.rs` |
//! | `moves-again` | what a consumer sent back is moved once (`sent_back.I1`) | raft, `driver` |
//! | `fires-again` | a new leader goes on at the watermark: what was delivered is not delivered again (`timers.I1`) | raft, `driver/timers/chain.rs` |
//! | `fires-early` | no message is delivered before its time (`timers.I4`) | raft, `driver/timers/task.rs` |
//! | `carry-drops` | what is pending in a segment that goes is parked again (`timers.I5`) | raft, `driver/timers/chain.rs` |
//! | `recalled-too-soon` | a recall is answered once it is committed | raft, `driver/timers/chain.rs` |
//! | `ended-too-soon` | the end of a transaction, and a send-back, are answered once they are committed | raft, `driver/runner.rs` |
//! | `popped-ack-lost` | an acknowledgement of a popped message is answered once it is committed (`pop.I5`) | raft, `group/popped.rs` |
//! | `founds-alone` | a node with an empty disk asks whether its group runs before it votes or founds (`founding.I1`) | raft, `group/begin.rs` |
//! | `stall-is-silence` | time a node did not run is not its leader's silence (`failure_detector.I1`) | raft, `group/failure_detector` |

/// Names the defect of a run.
pub const VARIABLE: &str = "FOLIO_PLANTED";

/// Every defect there is.
pub const NAMES: [&str; 21] = [
    "ack-before-sync",
    "vote-before-log",
    "forget-undo",
    "purge-poisons",
    "ack-before-majority",
    "serve-unapplied",
    "skip-truncation",
    "later-start-leads",
    "retry-stores-again",
    "deleted-comes-back",
    "locks-by-wall-clock",
    "repeat-by-key",
    "moves-again",
    "founds-alone",
    "stall-is-silence",
    "fires-again",
    "fires-early",
    "carry-drops",
    "recalled-too-soon",
    "ended-too-soon",
    "popped-ack-lost",
];

/// Whether this process has the defect `name`.
#[cfg(all(feature = "planted", not(test)))]
pub fn is(name: &str) -> bool {
    assert!(NAMES.contains(&name), "{name} is none of {NAMES:?}");
    active() == Some(name)
}

/// Whether this process has the defect `name`: never, in this build.
#[cfg(not(any(feature = "planted", test)))]
pub const fn is(_name: &str) -> bool {
    false
}

/// The defect of this process, in a build that can have one.
///
/// # Panics
/// When the variable names no defect: a run that tests nothing must not pass for one that does.
#[cfg(feature = "planted")]
pub fn active() -> Option<&'static str> {
    static ACTIVE: std::sync::OnceLock<Option<&'static str>> = std::sync::OnceLock::new();
    *ACTIVE.get_or_init(|| {
        let name = std::env::var(VARIABLE).ok().filter(|name| !name.is_empty())?;
        let known = NAMES.into_iter().find(|known| *known == name);
        assert!(known.is_some(), "{VARIABLE}={name} is none of {NAMES:?}");
        known
    })
}

/// The defect of this process: none, in this build.
#[cfg(not(feature = "planted"))]
pub const fn active() -> Option<&'static str> {
    None
}

#[cfg(test)]
pub(crate) use in_tests::{is, with};

/// Defects of a unit test's own thread.
#[cfg(test)]
mod in_tests {
    use std::cell::Cell;

    use super::NAMES;

    thread_local! {
        static HERE: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    /// Whether the test has the defect `name` now.
    pub(crate) fn is(name: &str) -> bool {
        assert!(NAMES.contains(&name), "{name} is none of {NAMES:?}");
        HERE.get() == Some(name)
    }

    /// Runs `run` with a defect in what this thread does.
    pub(crate) fn with<T>(name: &'static str, run: impl FnOnce() -> T) -> T {
        HERE.set(Some(name));
        let done = run();
        HERE.set(None);
        done
    }

    #[test]
    fn a_defect_lasts_as_long_as_it_is_asked_for() {
        assert!(!is("vote-before-log"));
        assert!(with("vote-before-log", || is("vote-before-log") && !is("ack-before-sync")));
        assert!(NAMES.into_iter().all(|name| !is(name)));
    }
}
