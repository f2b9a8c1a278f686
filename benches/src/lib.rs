//! What the micro-benchmarks work on: requests, messages and logs like those of a busy broker.
//!
//! They measure parts alone, on one thread, so that a change of one part shows; what a cluster does is
//! measured by `benches/cluster`. Run them with `cargo bench -p folio-benches`, or one family with
//! `cargo bench -p folio-benches --bench codec`.
//!
//! Figures of the log include the real disk of the temporary directory, without syncs: a sync would be
//! all that is seen.

use std::path::Path;
use std::sync::{Arc, mpsc};

use bytes::{Bytes, BytesMut};
use folio_engine::disk::RealDisk;
use folio_engine::keys::{DerivedKeys, KeyIndex, KeysError};
use folio_engine::log::{AppendError, OpenError};
use folio_engine::{CommitLog, ConsumeQueues, Draft, EntryId, LogConfig, QueueCounters, QueuesError, Record};
use folio_engine::{RecordKind, StampBase};
use folio_protocol::code::RequestCode;
use folio_protocol::frame::{Frame, Serialization};
use folio_protocol::header::SendMessageHeader;
use folio_protocol::message::{MessageError, NewMessage};

/// The topic of all messages.
pub const TOPIC: &str = "orders";
/// Its queues.
pub const QUEUES: u32 = 8;
/// The body most benchmarks of message queues use.
pub const BODY_BYTES: usize = 1_024;
/// Messages in one record when producers keep the proposer busy.
pub const BATCH: u32 = 100;

const SEGMENT_BYTES: u64 = 256 << 20;
const CACHE_BYTES: usize = 32 << 20;
const PROPERTIES: &str =
    "UNIQ_KEY\u{1}7F0000010A2B00000C0D11223344AABB\u{2}WAIT\u{1}true\u{2}TAGS\u{1}paid\u{2}";

/// A SEND as producers write it.
pub fn send_request(serialization: Serialization) -> Frame {
    let header = SendMessageHeader {
        producer_group: "shop".into(),
        topic: TOPIC.into(),
        default_topic: "TBW102".into(),
        default_topic_queue_nums: 4,
        queue_id: 3,
        sys_flag: 0,
        born_timestamp: 1_790_000_000_000,
        flag: 0,
        properties: Some(PROPERTIES.to_owned()),
        reconsume_times: Some(0),
        unit_mode: false,
        max_reconsume_times: None,
        batch: false,
        broker_name: Some("broker-a".into()),
    };
    let mut frame = Frame::request(RequestCode::SendMessageV2, &header, Bytes::from(vec![b'x'; BODY_BYTES]));
    frame.serialization = serialization;
    frame
}

/// A message of that SEND before it is stored.
pub fn new_message(queue: u32) -> NewMessage {
    let host = ([127, 0, 0, 1], 10_911).into();
    NewMessage {
        topic: TOPIC.into(),
        queue_id: queue,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 1_790_000_000_000,
        born_host: host,
        store_timestamp: 1_790_000_000_001,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: Bytes::from(vec![b'x'; BODY_BYTES]),
        properties: Bytes::from_static(PROPERTIES.as_bytes()),
    }
}

/// Encoded messages, spread over the queues.
pub fn messages(count: u32) -> Result<BytesMut, MessageError> {
    let mut out = BytesMut::new();
    for queue in 0..count {
        new_message(queue % QUEUES).encode(&mut out)?;
    }
    Ok(out)
}

/// Encoded messages as a record that has no place in the log yet.
pub fn draft(payload: &[u8], count: u32) -> Draft {
    let mut draft = Draft::with_payload(RecordKind::Messages, payload);
    draft.messages = count;
    draft
}

/// A log that is appended to.
pub struct Log {
    /// The log.
    pub log: CommitLog,
    next: u64,
}

impl Log {
    /// An empty log in `dir`, without syncs.
    pub fn open(dir: &Path) -> Result<Log, OpenError> {
        let config = LogConfig { segment_bytes: SEGMENT_BYTES, cache_bytes: CACHE_BYTES, sync: false };
        let log = CommitLog::open(Arc::new(RealDisk), dir, config, StampBase::default())?;
        Ok(Log { log, next: 1 })
    }

    /// Appends the next record.
    pub fn append(&mut self, draft: Draft) -> Result<Record, AppendError> {
        let id = EntryId { term: 1, index: self.next };
        self.next += 1;
        self.log.append(id, draft)
    }

    /// Waits until everything appended is written; whether it was.
    pub fn written(&self) -> bool {
        let (sender, receiver) = mpsc::channel();
        self.log.submit(Box::new(move |outcome| {
            // A receiver that is gone has stopped waiting.
            let _ = sender.send(outcome.is_ok());
        }));
        receiver.recv().unwrap_or(false)
    }
}

/// Empty consume queues in `dir`.
pub fn queues(dir: &Path) -> Result<ConsumeQueues, QueuesError> {
    let empty = QueueCounters::new();
    ConsumeQueues::open(Arc::new(RealDisk), dir, &empty, &empty)
}

/// An empty key index in `dir`.
pub fn keys(dir: &Path) -> Result<DerivedKeys, KeysError> {
    KeyIndex::open(Arc::new(RealDisk), dir, SEGMENT_BYTES, 1).map(|(keys, _)| DerivedKeys::new(keys))
}

#[cfg(test)]
mod tests {
    use folio_protocol::message::Messages;

    use super::*;

    #[test]
    fn what_is_measured_is_what_a_broker_does() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(&dir.path().join("log")).unwrap();
        let queues = queues(&dir.path().join("queues")).unwrap();
        let payload = messages(BATCH).unwrap();
        let mut arrivals = Vec::new();
        for _ in 0..3 {
            let record = log.append(draft(&payload, BATCH)).unwrap();
            queues.apply(&record, &mut arrivals).unwrap();
        }
        assert!(log.written());
        assert_eq!(arrivals.len(), 300);
        let unit = queues.units(TOPIC, 3, 5, 1).unwrap()[0];
        let bytes = log.log.bytes(unit.position, unit.size as usize).unwrap();
        let (_, message) = Messages::new(&bytes).next().unwrap().unwrap();
        assert_eq!((message.queue_id(), message.queue_offset(), message.body().len()), (3, 5, BODY_BYTES));
        log.log.close();
    }

    #[test]
    fn the_request_is_one_a_broker_reads() {
        for serialization in [Serialization::Json, Serialization::Rocketmq] {
            let mut wire = BytesMut::new();
            send_request(serialization).encode(&mut wire).unwrap();
            let read = Frame::decode(&mut wire).unwrap().unwrap();
            assert_eq!((read.serialization, read.body.len()), (serialization, BODY_BYTES));
        }
    }
}
