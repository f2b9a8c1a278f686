//! The scrub of consume queues: reads their files from the disk itself, so that a damaged unit is mended before a consumer
//! needs it.
//!
//! It has no clock and no thread: who calls it decides how fast and how often.

use std::sync::Arc;

use super::files::{base_of, end_of};
use super::queue::Queue;
use super::unit::UNIT_BYTES;
use super::unit::UnitPlace;
use super::{ConsumeQueues, Inner};

/// Units read together.
const CHUNK: u64 = 4096;
/// What reading from a file costs at least.
const BYTES_MIN: u64 = 4096;

/// How far a pass over the consume queues has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitsScrubbed {
    /// Where to go on; `None` at the end of the pass.
    pub next: Option<UnitPlace>,
    /// Bytes read.
    pub bytes: u64,
}

impl ConsumeQueues {
    /// Checks about `bytes` bytes of units as they are on the disk, from `from` on or from the first queue. What is damaged
    /// is noted.
    pub fn scrub(&self, from: Option<UnitPlace>, bytes: u64) -> UnitsScrubbed {
        let (mut read, mut offset) = (0, from.as_ref().map_or(0, |from| from.offset));
        for queue in self.inner.queues_from(from.as_ref()) {
            if from.as_ref().is_none_or(|from| (&from.topic, from.queue) != (&queue.topic, queue.number)) {
                offset = 0;
            }
            let (min, written) = queue.stored();
            offset = offset.max(min);
            while offset < written {
                if read >= bytes {
                    return UnitsScrubbed { next: Some(queue.place(offset)), bytes: read };
                }
                let end = written.min(offset + CHUNK).min(end_of(base_of(offset)));
                self.inner.scrub(&queue, offset, end);
                read += BYTES_MIN.max((end - offset) * UNIT_BYTES as u64);
                offset = end;
            }
        }
        UnitsScrubbed { next: None, bytes: read }
    }
}

impl Inner {
    /// The queues by name and number, without those before `from`.
    fn queues_from(&self, from: Option<&UnitPlace>) -> Vec<Arc<Queue>> {
        let place = |queue: &Queue| (queue.topic.clone(), queue.number);
        let mut queues: Vec<_> = self.topics.read().values().flatten().cloned().collect();
        queues.retain(|queue| from.is_none_or(|from| place(queue) >= (from.topic.clone(), from.queue)));
        queues.sort_unstable_by_key(|queue| place(queue));
        queues
    }

    fn scrub(&self, queue: &Queue, start: u64, end: u64) {
        match queue.look_stored(start..end, &self.files) {
            Ok(units) => {
                let mut before = true;
                for (unit, offset) in units.iter().zip(start..) {
                    // Of a stretch the first one is enough.
                    if unit.is_none() && before && offset >= queue.bounds().0 {
                        self.damages.note(queue, offset, false);
                    }
                    before = unit.is_some();
                }
            }
            Err(error) => {
                tracing::warn!(topic = &*queue.topic, queue = queue.number, start, %error, "units not scrubbed");
            }
        }
    }
}
