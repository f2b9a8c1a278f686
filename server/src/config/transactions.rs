//! When producers are asked about their transactions: times in milliseconds, or with a unit (`6s`).

use std::time::Duration;

use folio_broker::transactions::TransactionSettings;
use folio_protocol::half::duration_ms;
use serde::Deserialize;

use super::bounds::within;
use super::values::{BadValue, bad};

/// The table `[transactions]` of the TOML file.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Table {
    timeout: Option<Written>,
    check_interval: Option<Written>,
    checks_max: Option<i64>,
}

/// A time as it is written.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(i64),
    Text(String),
}

impl Table {
    /// `age_max`: how long the log is kept.
    pub(super) fn settings(self, age_max: Option<Duration>) -> Result<TransactionSettings, BadValue> {
        let written = |key, value: Option<Written>| match value {
            None => Ok(None),
            Some(Written::Number(ms)) => within(key, ms).map(|ms| Some(Duration::from_millis(ms))),
            Some(Written::Text(text)) => time(key, &text).map(Some),
        };
        let default = TransactionSettings::default();
        let checks_max =
            self.checks_max.map(|number| checks("transactions.checks_max", number)).transpose()?;
        Ok(TransactionSettings {
            timeout: written("transactions.timeout", self.timeout)?.unwrap_or(default.timeout),
            check_interval: written("transactions.check_interval", self.check_interval)?
                .unwrap_or(default.check_interval),
            checks_max: checks_max.unwrap_or(default.checks_max),
            age_max,
        })
    }
}

/// A time of a key: in milliseconds, or with a unit.
pub(super) fn time(key: &'static str, text: &str) -> Result<Duration, BadValue> {
    if let Ok(ms) = text.trim().parse::<i64>() {
        return within(key, ms).map(Duration::from_millis);
    }
    let ms = duration_ms(text, 1).ok_or_else(|| {
        bad(key, format!("{text:?} is no time: write milliseconds, or a number with one of ms, s, m, h, d"))
    })?;
    within(key, ms).map(Duration::from_millis)
}

/// A number of questions.
pub(super) fn checks(key: &'static str, number: i64) -> Result<u32, BadValue> {
    within(key, number).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<TransactionSettings, String> {
        let table: Table = toml::from_str(text).map_err(|error| error.to_string())?;
        table.settings(None).map_err(|error| format!("{}: {}", error.key, error.message))
    }

    /// Times with a unit were ignored for one protocol (apache/rocketmq#7415).
    #[test]
    fn times_are_understood_with_and_without_a_unit() {
        let expected = TransactionSettings {
            timeout: Duration::from_secs(10),
            check_interval: Duration::from_secs(60),
            checks_max: 3,
            age_max: None,
        };
        for text in [
            "timeout = 10000\ncheck_interval = 60000\nchecks_max = 3",
            "timeout = \"10s\"\ncheck_interval = \"1m\"\nchecks_max = 3",
            "timeout = \"10000\"\ncheck_interval = \"60000 ms\"\nchecks_max = 3",
        ] {
            assert_eq!(settings(text), Ok(expected.clone()), "{text}");
        }
        let default = TransactionSettings { age_max: None, ..TransactionSettings::default() };
        assert_eq!(settings(""), Ok(default));
    }

    #[test]
    fn what_is_no_time_is_refused_by_its_key() {
        for text in ["timeout = \"soon\"", "timeout = \"400d\"", "timeout = -1"] {
            let error = settings(text).unwrap_err();
            assert!(error.contains("transactions.timeout"), "{text}: {error}");
        }
        assert!(settings("checks_max = 0").is_err() && settings("check_interval = 0").is_err());
    }
}
