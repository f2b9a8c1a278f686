//! How long messages may wait: RocketMQ's delay levels (`messageDelayLevel`) and the longest delay (`timerMaxDelaySec`).

/// RocketMQ's levels.
pub const DEFAULT_LEVELS: &str = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h";
/// Levels at most.
const LEVELS_MAX: usize = 1024;
/// What one level may wait: ten years.
const LEVEL_MS_MAX: u64 = 10 * 365 * 24 * 3_600 * 1000;

/// The delay levels, from 1 on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelayLevels(Vec<u64>);

impl DelayLevels {
    /// Levels as RocketMQ writes them: a number and a unit each (`s`, `m`, `h`, `d`), separated by blanks.
    pub fn parse(text: &str) -> Result<DelayLevels, String> {
        let levels: Vec<u64> = text.split_whitespace().map(level).collect::<Result<_, _>>()?;
        match levels.len() {
            0 => Err("there is no level".to_owned()),
            1..=LEVELS_MAX => Ok(DelayLevels(levels)),
            many => Err(format!("{many} levels, the limit is {LEVELS_MAX}")),
        }
    }

    /// How long a message of a level waits, ms. A level above the last one is the last one, as in RocketMQ.
    pub fn delay_ms(&self, level: u32) -> u64 {
        let at = (level as usize).clamp(1, self.0.len());
        self.0[at - 1]
    }
}

impl Default for DelayLevels {
    fn default() -> DelayLevels {
        match DelayLevels::parse(DEFAULT_LEVELS) {
            Ok(levels) => levels,
            Err(error) => panic!("RocketMQ's own levels: {error}"),
        }
    }
}

fn level(text: &str) -> Result<u64, String> {
    let illegal = || format!("{text:?} is no delay: expected a number and one of s, m, h, d");
    let unit = match text.as_bytes().last() {
        Some(b's') => 1000,
        Some(b'm') => 60_000,
        Some(b'h') => 3_600_000,
        Some(b'd') => 86_400_000,
        _ => return Err(illegal()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| illegal())?;
    let delay = number.checked_mul(unit).filter(|ms| *ms <= LEVEL_MS_MAX);
    delay.ok_or_else(|| format!("{text:?} is longer than ten years"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rocketmqs_levels_go_from_a_second_to_two_hours() {
        let levels = DelayLevels::default();
        assert_eq!([1, 2, 5, 18].map(|level| levels.delay_ms(level)), [1000, 5000, 60_000, 7_200_000]);
        assert_eq!((levels.delay_ms(0), levels.delay_ms(99)), (1000, 7_200_000));
    }

    #[test]
    fn what_is_no_level_is_refused_by_name() {
        assert_eq!(DelayLevels::parse(" 2s  1d ").unwrap().delay_ms(2), 86_400_000);
        for text in ["", "5", "s", "-1s", "1s 5x", "99999999999999999999s", "20000d", "1\u{e9}"] {
            assert!(DelayLevels::parse(text).is_err(), "{text}");
        }
        assert!(DelayLevels::parse(&"1s ".repeat(LEVELS_MAX + 1)).is_err());
    }
}
