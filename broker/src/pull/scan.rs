//! Choosing the messages that answer a pull: where its offset stands in the queue, and which units of the
//! consume queue go into the answer.
//!
//! Pure: units in, positions out. Reading the bytes is `read`'s business.

use folio_engine::queues::Unit;

use folio_protocol::message::peek;
use folio_protocol::subscription::TagFilter;

/// Where a pull's offset stands in its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The queue has never had a message.
    Empty,
    /// Before the first message that is still there.
    Below,
    /// There are messages from it on.
    Within,
    /// Exactly after the last message: the next one will answer.
    End,
    /// Further than that.
    Beyond,
}

/// Where `offset` stands in a queue of these bounds (first offset, offset after the last).
pub(crate) fn place(bounds: Option<(u64, u64)>, offset: i64) -> Place {
    let Some((min, max)) = bounds.filter(|(_, max)| *max > 0) else { return Place::Empty };
    match u64::try_from(offset) {
        Err(_) => Place::Below,
        Ok(offset) if offset < min => Place::Below,
        Ok(offset) if offset < max => Place::Within,
        Ok(offset) if offset == max => Place::End,
        Ok(_) => Place::Beyond,
    }
}

/// How much one answer may hold. The first message always fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Limits {
    /// What a client gets that asks for nothing special, as `maxTransferBytesOnMessageInMemory`.
    const BYTES_DEFAULT: usize = 256 * 1024;
    /// What a client gets at most: a quarter of a frame, so that a single large message fits behind it.
    const BYTES_MAX: usize = 4 * 1024 * 1024;

    /// The limits of a request.
    pub(crate) fn of(max_messages: i32, max_bytes: Option<i32>) -> Limits {
        let messages = usize::try_from(max_messages).unwrap_or(1);
        let bytes = max_bytes.and_then(|bytes| usize::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
        Limits {
            messages: messages.clamp(1, folio_protocol::limits::PULL_MESSAGES_MAX),
            bytes: bytes.unwrap_or(Self::BYTES_DEFAULT).min(Self::BYTES_MAX),
        }
    }
}

/// Messages of consecutive offsets that stand back to back in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) position: u64,
    pub(crate) bytes: usize,
    /// Offset of the first one.
    pub(crate) first: u64,
    /// How many there are.
    pub(crate) messages: u64,
}

impl Run {
    /// The first offset whose message is not the one in `bytes`, which were read for this run (`pull.I1`).
    pub(crate) fn stranger(&self, bytes: &[u8], (topic, queue): (&str, u32)) -> Option<u64> {
        let (mut rest, mut position) = (bytes, self.position);
        for offset in self.first..self.first + self.messages {
            let route = peek(rest).ok().filter(|route| {
                (route.queue_offset, route.queue_id, route.physical_offset) == (offset, queue, position)
                    && route.topic == topic.as_bytes()
            });
            let Some(route) = route else { return Some(offset) };
            position += route.total_size as u64;
            rest = &rest[route.total_size..];
        }
        (!rest.is_empty()).then_some(self.first + self.messages.saturating_sub(1))
    }
}

/// The messages chosen for an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) runs: Vec<Run>,
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    /// The offset to go on with: after the last unit looked at, filtered ones included.
    pub(crate) next: u64,
    /// Set once the limits are reached: looking further is useless.
    pub(crate) full: bool,
}

impl Batch {
    /// Nothing chosen yet; the next unit is the one of offset `from`.
    pub(crate) fn new(from: u64) -> Batch {
        Batch { runs: Vec::new(), messages: 0, bytes: 0, next: from, full: false }
    }

    /// Looks at consecutive units, the first being the one of offset `self.next`.
    pub(crate) fn extend(&mut self, units: &[Unit], filter: &TagFilter, limits: Limits) {
        for unit in units {
            let bytes = unit.size as usize;
            if filter.matches(unit.tags_code) {
                if self.messages > 0
                    && (self.messages >= limits.messages || self.bytes + bytes > limits.bytes)
                {
                    self.full = true;
                    return;
                }
                self.push(unit.position, bytes, self.next);
            }
            self.next += 1;
        }
    }

    fn push(&mut self, position: u64, bytes: usize, offset: u64) {
        self.messages += 1;
        self.bytes += bytes;
        match self.runs.last_mut() {
            Some(run)
                if run.position + run.bytes as u64 == position && run.first + run.messages == offset =>
            {
                run.bytes += bytes;
                run.messages += 1;
            }
            _ => self.runs.push(Run { position, bytes, first: offset, messages: 1 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use folio_protocol::message::{NewMessage, stamp};

    use super::*;

    const LIMITS: Limits = Limits { messages: 3, bytes: 1000 };

    fn unit(position: u64, size: u32, tags_code: i64) -> Unit {
        Unit { position, size, tags_code }
    }

    #[test]
    fn an_offset_stands_in_one_of_five_places() {
        assert_eq!(place(None, 0), Place::Empty);
        assert_eq!(place(Some((0, 0)), 7), Place::Empty);
        assert_eq!(place(Some((5, 9)), 4), Place::Below);
        assert_eq!(place(Some((5, 9)), -1), Place::Below);
        assert_eq!(place(Some((5, 9)), 5), Place::Within);
        assert_eq!(place(Some((5, 9)), 8), Place::Within);
        assert_eq!(place(Some((5, 9)), 9), Place::End);
        assert_eq!(place(Some((5, 9)), 10), Place::Beyond);
        assert_eq!(place(Some((9, 9)), 9), Place::End, "everything has expired");
    }

    #[test]
    fn messages_back_to_back_become_one_run() {
        let mut batch = Batch::new(7);
        batch.extend(&[unit(100, 10, 0), unit(110, 20, 0), unit(200, 5, 0)], &TagFilter::All, LIMITS);
        let run = |position, bytes, first, messages| Run { position, bytes, first, messages };
        assert_eq!(batch.runs, [run(100, 30, 7, 2), run(200, 5, 9, 1)]);
        assert_eq!((batch.messages, batch.bytes, batch.next, batch.full), (3, 35, 10, false));
    }

    #[test]
    fn filtered_units_are_passed_over_and_count_for_the_next_offset() {
        let filter = TagFilter::parse("a").expect("a tag");
        let mut batch = Batch::new(0);
        batch.extend(&[unit(0, 10, 98), unit(10, 10, 97), unit(20, 10, 98)], &filter, LIMITS);
        assert_eq!((batch.messages, batch.next), (1, 3));
        assert_eq!(batch.runs, [Run { position: 10, bytes: 10, first: 1, messages: 1 }]);
    }

    #[test]
    fn i1_only_the_very_messages_asked_for_pass() {
        let message = |topic: &str, queue_id, offset, position| {
            let host = ([127, 0, 0, 1], 1).into();
            let new = NewMessage {
                topic: topic.into(),
                queue_id,
                flag: 0,
                sys_flag: 0,
                born_timestamp: 0,
                born_host: host,
                store_timestamp: 0,
                store_host: host,
                reconsume_times: 0,
                prepared_transaction_offset: 0,
                body: bytes::Bytes::from_static(b"body"),
                properties: bytes::Bytes::new(),
            };
            let mut bytes = bytes::BytesMut::new();
            new.encode(&mut bytes).expect("short enough");
            stamp(&mut bytes, offset, position);
            bytes.to_vec()
        };
        let first = message("t", 3, 7, 100);
        let size = first.len();
        let pair = |second: &[u8]| [&first[..], second].concat();
        let right = pair(&message("t", 3, 8, 100 + size as u64));
        let run = Run { position: 100, bytes: right.len(), first: 7, messages: 2 };
        assert_eq!(run.stranger(&right, ("t", 3)), None);
        let second = 100 + size as u64;
        let strangers = [
            message("u", 3, 8, second),
            message("t", 2, 8, second),
            message("t", 3, 9, second),
            message("t", 3, 8, second + 1),
            vec![0; size],
            Vec::new(),
        ];
        for stranger in strangers {
            assert_eq!(run.stranger(&pair(&stranger), ("t", 3)), Some(8), "{stranger:?}");
        }
        assert_eq!(run.stranger(&right, ("t", 4)), Some(7));
        assert_eq!(run.stranger(&[&right[..], b"x"].concat(), ("t", 3)), Some(8), "bytes left over");
    }

    #[test]
    fn a_full_batch_stops_before_the_message_that_does_not_fit() {
        let mut batch = Batch::new(0);
        batch.extend(&[unit(0, 900, 0), unit(900, 100, 0), unit(1000, 1, 0)], &TagFilter::All, LIMITS);
        assert_eq!((batch.messages, batch.bytes, batch.next, batch.full), (2, 1000, 2, true));
        let mut batch = Batch::new(0);
        batch.extend(&[unit(0, 1, 0), unit(1, 1, 0), unit(2, 1, 0), unit(3, 1, 0)], &TagFilter::All, LIMITS);
        assert_eq!((batch.messages, batch.next, batch.full), (3, 3, true));
    }

    #[test]
    fn a_message_larger_than_the_limit_is_answered_alone() {
        let mut batch = Batch::new(0);
        batch.extend(&[unit(0, 5000, 0), unit(5000, 1, 0)], &TagFilter::All, LIMITS);
        assert_eq!((batch.messages, batch.bytes, batch.next), (1, 5000, 1));
    }

    #[test]
    fn limits_are_held_within_what_a_frame_carries() {
        assert_eq!(Limits::of(32, None), Limits { messages: 32, bytes: 256 * 1024 });
        assert_eq!(Limits::of(0, Some(0)), Limits { messages: 1, bytes: 256 * 1024 });
        assert_eq!(Limits::of(-5, Some(i32::MAX)), Limits { messages: 1, bytes: 4 * 1024 * 1024 });
        assert_eq!(Limits::of(i32::MAX, Some(1)), Limits { messages: 160, bytes: 1 });
    }
}
