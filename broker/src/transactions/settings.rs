//! What an operator may set of transactions, by RocketMQ's names and defaults.

use std::time::Duration;

use folio_state::sections::transactions::{NO_IMMUNITY, OpenTransaction};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionSettings {
    /// `transactionTimeOut`: after this time a producer that has said nothing is asked first.
    pub timeout: Duration,
    /// `transactionCheckInterval`: the time between two questions.
    pub check_interval: Duration,
    /// `transactionCheckMax`: a transaction whose producer was asked so often is given up.
    pub checks_max: u32,
    /// A transaction that is open for longer is given up: RocketMQ's `fileReservedTime`. `None`: none is.
    pub age_max: Option<Duration>,
}

impl Default for TransactionSettings {
    fn default() -> TransactionSettings {
        TransactionSettings {
            timeout: Duration::from_secs(6),
            check_interval: Duration::from_secs(30),
            checks_max: 15,
            age_max: Some(Duration::from_hours(72)),
        }
    }
}

/// What is to be done with an open transaction now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Ask,
    GiveUp,
}

impl TransactionSettings {
    /// What is to be done at a time, ms since the epoch.
    pub(super) fn due(&self, open: &OpenTransaction, now_ms: u64) -> Due {
        let passed =
            |since_ms: u64, time: Duration| u128::from(now_ms.saturating_sub(since_ms)) >= time.as_millis();
        if self.age_max.is_some_and(|age| passed(open.stored_ms, age)) {
            return Due::GiveUp;
        }
        let is_due = match open.checks {
            0 => passed(open.stored_ms, self.immunity(open)),
            _ => passed(open.checked_ms, self.check_interval),
        };
        match is_due {
            false => Due::Nothing,
            true if open.checks >= self.checks_max => Due::GiveUp,
            true => Due::Ask,
        }
    }

    /// How long a producer is not asked. What it wishes counts where that is longer than the setting, as in RocketMQ.
    fn immunity(&self, open: &OpenTransaction) -> Duration {
        match open.immunity_s {
            NO_IMMUNITY => self.timeout,
            seconds => self.timeout.max(Duration::from_secs(seconds.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(immunity_s: u32, checks: u32, checked_ms: u64) -> OpenTransaction {
        OpenTransaction {
            position: 1,
            bytes: 1,
            queue_offset: 0,
            stored_ms: 1_000_000,
            immunity_s,
            checks,
            checked_ms,
        }
    }

    /// Immune rounds counted as checks (apache/rocketmq#8311).
    #[test]
    fn transactions_i4_nobody_is_asked_before_its_time() {
        let settings = TransactionSettings::default();
        let due = |open, after_s: u64| settings.due(&open, 1_000_000 + 1000 * after_s);
        assert_eq!(
            (due(open(NO_IMMUNITY, 0, 0), 5), due(open(NO_IMMUNITY, 0, 0), 6)),
            (Due::Nothing, Due::Ask)
        );
        assert_eq!((due(open(600, 0, 0), 599), due(open(600, 0, 0), 600)), (Due::Nothing, Due::Ask));
        assert_eq!(due(open(1, 0, 0), 5), Due::Nothing, "no sooner than the setting");
        let asked = open(600, 1, 1_700_000);
        assert_eq!((due(asked, 729), due(asked, 730)), (Due::Nothing, Due::Ask));
        assert_eq!(settings.due(&open(NO_IMMUNITY, 0, 0), 7), Due::Nothing, "the clock was set back");
    }

    #[test]
    fn one_that_was_asked_too_often_or_is_too_old_is_given_up() {
        let settings = TransactionSettings { checks_max: 2, ..TransactionSettings::default() };
        let at = |open, after_s: u64| settings.due(&open, 1_000_000 + 1000 * after_s);
        assert_eq!(at(open(NO_IMMUNITY, 1, 1_036_000), 66), Due::Ask);
        assert_eq!(at(open(NO_IMMUNITY, 2, 1_066_000), 95), Due::Nothing, "the last answer may come");
        assert_eq!(at(open(NO_IMMUNITY, 2, 1_066_000), 96), Due::GiveUp);
        let days_3 = 72 * 3600;
        assert_eq!(at(open(u32::MAX - 1, 0, 0), days_3 - 1), Due::Nothing);
        assert_eq!(at(open(u32::MAX - 1, 0, 0), days_3), Due::GiveUp);
        let for_ever = TransactionSettings { age_max: None, ..settings };
        assert_eq!(for_ever.due(&open(u32::MAX - 1, 0, 0), 1_000_000 + 1000 * days_3), Due::Nothing);
    }
}
