//! The first offsets of queues move up: by retention, which drops the log below, and by deletion, which does not.
//!
//! In both cases nothing below is read any more as soon as the call returns. Files that lie wholly below go then; what a crash
//! leaves of them, the next start removes.

use std::ops::Range;
use std::sync::Arc;

use super::error::QueuesError;
use super::files::{FILE_BYTES, file_path};
use super::queue::Queue;
use super::{ConsumeQueues, Inner};
use crate::counters::QueueCounters;

/// Queues whose first offset has moved past files, with the bases of these.
#[must_use]
pub struct Trimmed(Vec<(Arc<Queue>, Range<u64>)>);

impl Trimmed {
    /// Whether no file is to be removed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl ConsumeQueues {
    /// Retention: the first offset of each queue moves up to that in `min`, and files wholly below are removed.
    pub fn trim(&self, min: &QueueCounters) -> Result<(), QueuesError> {
        let _applier = self.inner.applier.lock();
        for (topic, number, offset) in min.iter() {
            if let Some(queue) = self.inner.find(topic, number) {
                self.inner.trim(&queue, offset)?;
            }
        }
        Ok(())
    }

    /// Deletion: the first offsets of these queues of a topic move up, for every reader from now on. Only memory is touched;
    /// what lies wholly below is to be removed with [`ConsumeQueues::remove_trimmed`].
    pub fn raise(&self, topic: &str, first: &[(u32, u64)]) -> Trimmed {
        let _applier = self.inner.applier.lock();
        let queues = first.iter().filter_map(|&(number, min)| {
            let queue = self.inner.find(topic, number)?;
            let bases = queue.trim(min);
            (!bases.is_empty()).then_some((queue, bases))
        });
        Trimmed(queues.collect())
    }

    /// Removes the files of what was trimmed. No reader or writer uses them, so appliers do not wait for it. Where the
    /// queues were emptied since, nothing is removed: files of these names may be there again.
    pub fn remove_trimmed(&self, trimmed: Trimmed) -> Result<(), QueuesError> {
        trimmed.0.into_iter().try_for_each(|(queue, bases)| self.inner.remove_files(&queue, bases))
    }
}

impl Inner {
    fn trim(&self, queue: &Queue, min: u64) -> Result<(), QueuesError> {
        self.remove_files(queue, queue.trim(min))
    }

    fn remove_files(&self, queue: &Queue, bases: Range<u64>) -> Result<(), QueuesError> {
        for base in bases.step_by(FILE_BYTES as usize) {
            let topics = self.topics.read();
            let of_topic = topics.get(&queue.topic).into_iter().flatten();
            if !of_topic.into_iter().any(|known| std::ptr::eq(&**known, queue)) {
                return Ok(());
            }
            self.files.close((queue.serial, base));
            let path = file_path(&queue.dir, base);
            match self.files.disk().remove(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(QueuesError::io(path, "remove")(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::UNITS_PER_FILE;
    use super::super::tests::{Maker, all, apply, counters, disk, empty, open};
    use super::*;
    use crate::disk::Disk;

    #[test]
    fn what_is_deleted_is_not_read_again_and_what_comes_after_is() {
        let (disk, mut maker) = (disk(), Maker::default());
        let queues = empty(&disk);
        apply(&queues, &maker.record(&[("t", 0), ("t", 0), ("t", 1), ("u", 0)]));
        assert_eq!(queues.next_offsets("t"), [(0, 2), (1, 1)]);
        assert!(queues.next_offsets("none").is_empty());
        // A queue that never was is passed over; no minimum is above the next offset, and none falls.
        assert!(queues.raise("t", &[(0, 2), (1, 9), (7, 3)]).is_empty());
        assert!(queues.raise("t", &[(0, 1)]).is_empty());
        assert_eq!((queues.bounds("t", 0), queues.bounds("t", 1)), (Some((2, 2)), Some((1, 1))));
        assert!(matches!(queues.units("t", 0, 1, 1), Err(QueuesError::Trimmed { min: 2, .. })));
        apply(&queues, &maker.record(&[("t", 0), ("u", 0)]));
        assert_eq!((all(&queues, "t", 0).len(), all(&queues, "u", 0).len()), (1, 2));
        // The checkpoint's minimum counts at the next start, though the files hold more.
        queues.sync().unwrap();
        let min = counters(&[("t", 0, 2), ("t", 1, 1)]);
        let queues = open(&disk, &maker.counters, &min).unwrap();
        assert_eq!((queues.bounds("t", 0), all(&queues, "t", 0).len()), (Some((2, 3)), 1));
        assert_eq!(queues.bounds("t", 1), Some((1, 1)));
    }

    #[test]
    fn the_files_of_what_is_deleted_go_and_the_queue_goes_on() {
        let end = UNITS_PER_FILE + 2;
        let (disk, mut maker) = (disk(), Maker::at(&counters(&[("t", 0, UNITS_PER_FILE - 2)])));
        let begin = maker.counters.clone();
        let queues = open(&disk, &begin, &begin).unwrap();
        for _ in UNITS_PER_FILE - 2..end {
            apply(&queues, &maker.record(&[("t", 0)]));
        }
        queues.sync().unwrap();
        let first = file_path(&super::super::tests::dir().join("consumequeue/t/0"), 0);
        assert!(disk.exists(&first).unwrap());
        let trimmed = queues.raise("t", &[(0, end)]);
        assert!(!trimmed.is_empty() && disk.exists(&first).unwrap(), "the disk is left alone");
        queues.remove_trimmed(trimmed).unwrap();
        assert!(!disk.exists(&first).unwrap());
        apply(&queues, &maker.record(&[("t", 0)]));
        queues.sync().unwrap();
        let queues = open(&disk, &maker.counters, &counters(&[("t", 0, end)])).unwrap();
        assert_eq!((queues.bounds("t", 0), all(&queues, "t", 0).len()), (Some((end, end + 1)), 1));
    }
}
