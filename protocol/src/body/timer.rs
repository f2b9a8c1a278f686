//! Delayed messages that wait for their time: 61.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::lenient::or_default;
use super::topic::DataVersion;

/// How many wait, by topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TimerMetrics {
    /// When that changed last.
    pub data_version: DataVersion,
    /// By the topics that they are for.
    #[serde(deserialize_with = "or_default")]
    pub timing_count: BTreeMap<String, TimerMetric>,
}

/// How many wait for one topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TimerMetric {
    /// Messages.
    pub count: i64,
    /// When that was so, ms since the epoch.
    pub time_stamp: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::{decode, encode};

    #[test]
    fn the_json_is_rocketmqs() {
        let json = br#"{"dataVersion":{"counter":0,"stateVersion":0,"timestamp":0},"timingCount":{"orders":{"count":3,"timeStamp":9}}}"#;
        let metrics: TimerMetrics = decode(json).unwrap();
        assert_eq!(metrics.timing_count["orders"], TimerMetric { count: 3, time_stamp: 9 });
        assert_eq!(encode(&metrics).unwrap(), &json[..]);
    }
}
