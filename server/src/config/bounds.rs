//! What each number of a configuration may be.
//!
//! Limits are where a value stops making sense: below, the node could not work; above, its arithmetic, its memory or its
//! operator's patience would end. A time that is added to a clock is bounded here, not where it is added.
//!
//! - `config.I1`: a number, a size or a duration is taken only within the range of its key; the error names the key, the
//!   value and the range.

use std::time::Duration;

use super::size::ByteSize;
use super::values::{BadValue, DEDUP_KEYS_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, bad};
use crate::net::{MEMORY_BYTES_MAX, MEMORY_BYTES_MIN};

/// From where to where a key's value may go.
pub(super) struct Range {
    pub(super) key: &'static str,
    pub(super) min: u64,
    pub(super) max: u64,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Count,
    Bytes,
}

const fn count(key: &'static str, min: u64, max: u64) -> Range {
    Range { key, min, max, kind: Kind::Count }
}

const fn bytes(key: &'static str, min: u64, max: u64) -> Range {
    Range { key, min, max, kind: Kind::Bytes }
}

/// Ids and Java's `int`.
const ID_MAX: u64 = i32::MAX as u64;
/// Ten years: what is kept longer has no limit by age, which is written as 0.
const KEEP_HOURS_MAX: u64 = 10 * 365 * 24;

/// Ten years, too.
const TIMER_DELAY_S_MAX: u64 = KEEP_HOURS_MAX * 3_600;

/// A week.
const TRANSACTION_MS_MAX: u64 = 7 * 24 * 3_600_000;

/// Every number in the TOML file.
pub(super) static OF_FILE: [Range; 26] = [
    count("node_id", 1, ID_MAX),
    count("nodes.id", 1, ID_MAX),
    count("workers", 1, 1_024),
    // A record of the largest size, its neighbour and the filler must fit; a segment is removed as a whole, and a start
    // may have to go over the headers of one.
    bytes("log.segment_size", SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX),
    count("log.keep_hours", 0, KEEP_HOURS_MAX),
    bytes("log.keep_size", SEGMENT_BYTES_MIN, 1 << 50),
    bytes("log.scrub_rate", 0, 16 << 30),
    count("log.scrub_hours", 0, 365 * 24),
    count("dedup.keys", 2, DEDUP_KEYS_MAX),
    count("dedup.seconds", 1, 24 * 3_600),
    // What a restart reads.
    bytes("dedup.log_size", 1 << 20, 64 << 30),
    count("timers.max_delay_seconds", 1, TIMER_DELAY_S_MAX),
    count("transactions.timeout", 0, TRANSACTION_MS_MAX),
    count("transactions.check_interval", 100, TRANSACTION_MS_MAX),
    count("transactions.checks_max", 1, 10_000),
    count("raft.election_min_ms", 50, 60_000),
    count("raft.election_max_ms", 50, 60_000),
    count("raft.heartbeat_ms", 5, 20_000),
    // The least takes one frame of the largest size, and some more.
    bytes("limits.memory", MEMORY_BYTES_MIN as u64, MEMORY_BYTES_MAX as u64),
    count("limits.connections", 1, 1_000_000),
    count("limits.connections_per_address", 1, 1_000_000),
    count("limits.requests", 1, u16::MAX as u64),
    count("limits.idle_seconds", 1, 24 * 3_600),
    count("limits.frame_seconds", 1, 3_600),
    count("limits.write_seconds", 1, 3_600),
    // An answer of the smallest kind must fit; one client alone must not hold the machine's memory.
    bytes("limits.client_queue", 64 << 10, 1 << 30),
];

/// Every number in a `broker.conf`, ports aside.
pub(super) static OF_BROKER_CONF: [Range; 6] = [
    count("fileReservedTime", 1, KEEP_HOURS_MAX),
    bytes("mappedFileSizeCommitLog", SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX),
    count("timerMaxDelaySec", 1, TIMER_DELAY_S_MAX),
    count("transactionTimeOut", 0, TRANSACTION_MS_MAX),
    count("transactionCheckInterval", 100, TRANSACTION_MS_MAX),
    count("transactionCheckMax", 1, 10_000),
];

/// The range of a key.
pub(super) fn range_of(key: &str) -> Option<&'static Range> {
    OF_FILE.iter().chain(&OF_BROKER_CONF).find(|range| range.key == key)
}

impl Range {
    fn show(&self, value: i128) -> String {
        match (self.kind, u64::try_from(value)) {
            (Kind::Bytes, Ok(value)) => ByteSize(value).to_string(),
            _ => value.to_string(),
        }
    }
}

/// The value, if its key's range has it (`config.I1`).
pub(super) fn within(key: &'static str, value: impl Into<i128>) -> Result<u64, BadValue> {
    let value = value.into();
    let Some(range) = range_of(key) else {
        return Err(bad(key, "has no range in config/bounds.rs: this is a bug"));
    };
    match u64::try_from(value) {
        Ok(value) if (range.min..=range.max).contains(&value) => Ok(value),
        _ => {
            let [value, min, max] =
                [value, range.min.into(), range.max.into()].map(|value| range.show(value));
            Err(bad(key, format!("{value} is out of range: it must be between {min} and {max}")))
        }
    }
}

/// A number of things.
pub(super) fn number(key: &'static str, value: Option<i64>) -> Result<Option<usize>, BadValue> {
    let value = value.map(|value| within(key, value)).transpose()?;
    // No range goes beyond 32 bits.
    Ok(value.map(|value| value as usize))
}

/// A number of bytes.
pub(super) fn size(key: &'static str, value: Option<ByteSize>) -> Result<Option<u64>, BadValue> {
    value.map(|ByteSize(bytes)| within(key, bytes)).transpose()
}

/// A time, in units of so many milliseconds.
pub(super) fn time(
    key: &'static str,
    value: Option<i64>,
    unit_ms: u64,
) -> Result<Option<Duration>, BadValue> {
    let value = value.map(|value| within(key, value)).transpose()?;
    Ok(value.map(|value| Duration::from_millis(value * unit_ms)))
}

/// Milliseconds of a second and of an hour.
pub(super) const SECOND_MS: u64 = 1_000;
pub(super) const HOUR_MS: u64 = 3_600 * SECOND_MS;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{EXAMPLE, NodeConfig};
    use super::*;

    /// The example with every key, those that are comments too.
    fn example() -> toml::Table {
        let lines = EXAMPLE.lines().map(|line| match line.strip_prefix("# ") {
            Some(rest)
                if rest
                    .split_once(" = ")
                    .is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_')) =>
            {
                rest
            }
            _ => line,
        });
        let mut table: toml::Table = lines.collect::<Vec<_>>().join("\n").parse().expect("TOML");
        // It names a file, which the folder of these tests does not have.
        table.remove("secret_file");
        table
    }

    /// Keys of numbers and sizes, with the way to each.
    fn numbers(value: &toml::Value, path: &[String], found: &mut Vec<Vec<String>>) {
        let below = |key: &str| [path, &[key.to_owned()]].concat();
        match value {
            toml::Value::Integer(_) => found.push(path.to_vec()),
            toml::Value::String(text) if text.parse::<ByteSize>().is_ok() => found.push(path.to_vec()),
            toml::Value::Table(table) => {
                table.iter().for_each(|(key, value)| numbers(value, &below(key), found))
            }
            // One of several like it.
            toml::Value::Array(all) => all.first().into_iter().for_each(|one| numbers(one, path, found)),
            _ => {}
        }
    }

    fn set(value: &mut toml::Value, path: &[String], to: i64) {
        match (value, path) {
            (toml::Value::Table(table), [key, rest @ ..]) => set(table.get_mut(key).expect(key), rest, to),
            (toml::Value::Array(all), _) => set(all.first_mut().expect("one"), path, to),
            (value, _) => *value = to.into(),
        }
    }

    fn parse_with(path: &[String], to: i64) -> Result<(), String> {
        let mut whole = toml::Value::Table(example());
        set(&mut whole, path, to);
        let text = toml::to_string(&whole).expect("TOML");
        NodeConfig::parse(Path::new("n.toml"), &text).map(drop).map_err(|error| error.to_string())
    }

    fn all_numbers() -> Vec<Vec<String>> {
        let mut found = Vec::new();
        numbers(&toml::Value::Table(example()), &[], &mut found);
        found
    }

    /// `idle_seconds = 2^63-1` ended every connection by a panic, `connections = 0` served nobody, `workers = 100000` did not
    /// start. A key that is new in the example fails here until its range is chosen.
    #[test]
    fn config_i1_every_number_of_the_file_has_a_range_and_is_refused_beyond_it() {
        for path in all_numbers() {
            let key = path.join(".");
            let range = OF_FILE.iter().find(|range| range.key == key);
            let range = range.unwrap_or_else(|| panic!("{key} has no range in config/bounds.rs"));
            for wrong in [i64::MAX, range.max as i64 + 1, range.min as i64 - 1, -1, i64::MIN] {
                if (range.min as i64..=range.max as i64).contains(&wrong) {
                    continue;
                }
                let error = parse_with(&path, wrong).expect_err(&key);
                let named =
                    error.starts_with(&format!("n.toml: {key}: ")) && error.contains("must be between");
                // A size below nothing is no size, which the parser finds.
                assert!(named || (wrong < 0 && error.contains("is no size")), "{key} = {wrong}: {error}");
            }
        }
    }

    #[test]
    fn config_i1_every_range_is_of_a_key_of_the_example_and_its_ends_belong_to_it() {
        let found: Vec<String> = all_numbers().iter().map(|path| path.join(".")).collect();
        for range in &OF_FILE {
            assert!(found.iter().any(|key| key == range.key), "{} is not in the example", range.key);
        }
        // What depends on other keys is tested with them.
        let depends = |key: &str| key.starts_with("raft.") || key == "node_id" || key == "nodes.id";
        for path in all_numbers().iter().filter(|path| !depends(&path.join("."))) {
            let range = range_of(&path.join(".")).expect("a range");
            for right in [range.min, range.max] {
                assert_eq!(parse_with(path, right as i64), Ok(()), "{} = {right}", range.key);
            }
        }
    }

    #[test]
    fn config_i1_the_error_names_key_value_and_range() {
        let path = |key: &str| key.split('.').map(str::to_owned).collect::<Vec<_>>();
        let error = |key: &str, value| parse_with(&path(key), value).expect_err(key);
        let text = "n.toml: limits.idle_seconds: 9223372036854775807 is out of range: it must be between 1 and 86400";
        assert_eq!(error("limits.idle_seconds", i64::MAX), text);
        let text = "n.toml: workers: 100000 is out of range: it must be between 1 and 1024";
        assert_eq!(error("workers", 100_000), text);
        let text = "n.toml: log.segment_size: 1KiB is out of range: it must be between 16MiB and 4GiB";
        assert_eq!(error("log.segment_size", 1_024), text);
    }
}
