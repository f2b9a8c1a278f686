//! A log for the conformance suite: messages of several topics with keys, commands and transitions between them.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use folio_protocol::message::NewMessage;

use crate::derived::LogPoint;
use crate::disk::sim::SimDisk;
use crate::log::{CommitLog, LogConfig, StampBase};
use crate::record::{Draft, EntryId, Record, RecordKind};

/// Store times of the messages, and how far apart they are.
pub(crate) const FIRST_STORE_MS: i64 = 1_700_000_000_000;
pub(crate) const STORE_STEP_MS: i64 = 10;

/// The log and its records; index 0 is the first.
pub(crate) struct Story {
    pub(crate) log: CommitLog,
    pub(crate) records: Vec<Record>,
    /// The place before each record, and the one behind the last.
    pub(crate) bases: Vec<StampBase>,
}

/// Message `number` of the story: `n` keys repeat, one is of this message alone, and some have none.
fn message(number: u64) -> NewMessage {
    let host = ([127, 0, 0, 1], 10911).into();
    let properties = match number % 4 {
        3 => format!("TAGS\x01a\x02UNIQ_KEY\x01U{number}\x02"),
        _ => format!("KEYS\x01k{} only{number}\x02TAGS\x01b\x02UNIQ_KEY\x01U{number}\x02", number % 7),
    };
    NewMessage {
        topic: if number.is_multiple_of(3) { "bills".into() } else { "orders".into() },
        queue_id: (number % 2) as u32,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 1,
        born_host: host,
        store_timestamp: FIRST_STORE_MS + number as i64 * STORE_STEP_MS,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: Bytes::from_static(b"body"),
        properties: properties.into(),
    }
}

impl Story {
    /// A story of so many records, in segments of 16 KiB.
    pub(crate) fn new(count: u64) -> Story {
        let (config, dir) = (LogConfig { segment_bytes: 16 << 10, cache_bytes: 0, sync: false }, "/log");
        let disk = SimDisk::new();
        let log = CommitLog::open(Arc::new(disk), Path::new(dir), config, StampBase::default()).unwrap();
        let (mut records, mut bases, mut number) = (Vec::new(), vec![StampBase::default()], 0);
        for index in 0..count {
            let mut draft = match index % 5 {
                1 => Draft::transition(&[b"move".to_vec()], 0).unwrap(),
                3 => Draft::with_payload(RecordKind::Command, b"command"),
                _ => Draft::new(RecordKind::Messages, 0),
            };
            if draft.kind().has_messages() {
                for _ in 0..=index % 3 {
                    message(number).encode(draft.payload_mut()).unwrap();
                    draft.messages += 1;
                    number += 1;
                }
            }
            let record = log.append(EntryId { term: 1, index }, draft).unwrap();
            let LogPoint { id, position, crc } = LogPoint::after(&record);
            bases.push(StampBase { id, position, prev_crc: crc, counters: log.counters() });
            records.push(record);
        }
        Story { log, records, bases }
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }
}
