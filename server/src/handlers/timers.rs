//! Delayed messages that wait for their time, as tools ask for them: GET_TIMER_METRICS (61), and FolioMQ's own list.
//!
//! The list is request code [`TIMER_LIST`], no body; the header's fields [`TOPIC`] and [`MAX`] may say of which topic, and how many at most. The answer's
//! body is a list of [`PendingTimer`] in JSON, in the order in which they are due.

use std::collections::BTreeMap;
use std::sync::Arc;

use folio_broker::clock::now_ms;
pub use folio_broker::pending::PendingTimer;
use folio_protocol::body::{DataVersion, TimerMetric, TimerMetrics};

use super::answers::{json, wanted};
use crate::remoting::Remoting;
use crate::request::Request;

/// List of delayed messages that wait.
pub const TIMER_LIST: i32 = 90_004;
/// The header's field with the topic; default: all.
pub const TOPIC: &str = "topic";
/// The header's field with how many are wanted at most; default: 100.
pub const MAX: &str = "max";
/// Messages of a list that does not say how many.
const DEFAULT_MAX: usize = 100;

/// 61: how many wait, by topic.
pub(crate) fn metrics(remoting: &Arc<Remoting>, request: Request) {
    let broker = remoting.broker.clone();
    tokio::spawn(async move {
        match broker.pending_by_topic().await {
            Ok(counts) => {
                let time_stamp = now_ms().cast_signed();
                let metric = |count: u64| TimerMetric { count: count.cast_signed(), time_stamp };
                let timing_count = counts.into_iter().map(|(topic, count)| (topic, metric(count)));
                let timing_count: BTreeMap<String, TimerMetric> = timing_count.collect();
                json(request, &TimerMetrics { data_version: DataVersion::default(), timing_count });
            }
            Err(error) => request.reply.fail(error),
        }
    });
}

/// 90,004: which wait.
pub(crate) fn list(remoting: &Arc<Remoting>, request: Request) {
    let topic = request.frame.ext.get(TOPIC).map(ToString::to_string);
    let max = match wanted(&request.frame, MAX) {
        Ok(max) => max.unwrap_or(DEFAULT_MAX),
        Err(error) => return request.reply.fail(error),
    };
    let broker = remoting.broker.clone();
    tokio::spawn(async move {
        match broker.list_pending(topic, max).await {
            Ok(timers) => json(request, &timers),
            Err(error) => request.reply.fail(error),
        }
    });
}
