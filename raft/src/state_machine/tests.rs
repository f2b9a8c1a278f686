//! What is read of checkpoints of this and of earlier versions.

use std::path::Path;

use folio_engine::disk::Disk;
use folio_engine::disk::sim::SimDisk;
use folio_engine::queues::UNITS_PER_FILE;
use folio_engine::record::Draft;
use folio_protocol::message::NewMessage;

use super::*;
use crate::command::{Command, Topic};
use crate::storage_suite::open_on;

#[test]
fn a_checkpoint_of_an_earlier_version_is_read_and_asks_for_no_window() {
    let membership = StoredMembership::default();
    let replicated = || WireReplicated {
        membership_log_id: None,
        membership: membership.membership().into(),
        metadata: MetadataV1::with_topic(Topic::new("orders", 4)),
    };
    let window = || WireWithWindowV1 { state: replicated(), dedup_from: Some(7) };
    let first = EntryId { term: 3, index: 5 };
    let terms = vec![WireLogId::from(&log_id(first))];
    let of_node = WireOfNodeV1 { state: window(), dedup_position: Some(9), terms };
    let starts = |position| Some(Start { index: 7, position });
    let forms = [
        (codec::encode(&replicated()), None, None),
        (codec::encode(&window()), starts(None), None),
        (codec::encode(&of_node), starts(Some(9)), Some(Terms::after(Some(first)))),
    ];
    for (bytes, dedup_from, terms) in forms {
        let state = State::decode(&bytes).unwrap();
        assert!(state.metadata.topic("orders").is_some());
        assert_eq!((state.dedup_from, state.terms), (dedup_from, terms));
        assert!(State::decode(&bytes[..bytes.len() - 1]).is_err());
    }
    // The first form as an earlier build wrote it: no membership, one topic.
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let golden = [
        b"FQ\x01\0\0".to_vec(),
        vec![0; 2 * 8],
        1_u64.to_le_bytes().to_vec(),
        text("orders"),
        text("orders"),
        [4_u32, 4, 6].map(u32::to_le_bytes).concat(),
        vec![0, 0, 0, 0, 0],
        text("SINGLE_TAG"),
        vec![0; 4 * 8],
    ]
    .concat();
    assert_eq!(codec::encode(&replicated()), golden);
}

#[test]
fn a_checkpoint_gives_back_what_it_was_made_of() {
    let mut metadata = Metadata::default();
    metadata.apply(Command::CreateTopic(Topic::new("orders", 4)));
    metadata.apply_with(Command::DeleteTopic { name: "t".into() }, &OneQueue);
    let (membership, from) = (StoredMembership::default(), Some(Start { index: 7, position: Some(9) }));
    let terms = Terms::after(Some(EntryId { term: 3, index: 5 }));
    let made = |terms| {
        let (membership, metadata) = (membership.clone(), metadata.clone());
        State { membership, metadata, dedup_from: from, terms, locks_as_of: None }
    };
    let here = made(Some(terms.clone())).encode().unwrap();
    let state = State::decode(&here).unwrap();
    assert_eq!((&state.metadata, state.dedup_from, state.terms), (&metadata, from, Some(terms)));
    // A snapshot, for any node.
    let snapshot = made(None).encode().unwrap();
    let state = State::decode(&snapshot).unwrap();
    let from = Some(Start { index: 7, position: None });
    assert_eq!((&state.metadata, state.dedup_from, state.terms), (&metadata, from, None));
    assert_eq!(state.metadata.min_offsets().get("t", 0), 3);
    assert_eq!(state.locks_as_of, None);
    // One that was made again.
    let again = State { locks_as_of: Some(12), ..made(None) }.encode().unwrap();
    let state = State::decode(&again).unwrap();
    assert_eq!((&state.metadata, state.locks_as_of), (&metadata, Some(12)));
    assert_eq!(&again[..4], b"FQ\x03\0");
}

struct OneQueue;

impl crate::min_offsets::NextOffsets for OneQueue {
    fn next_offsets(&self, _: &str) -> Vec<(u32, u64)> {
        vec![(0, 3)]
    }
}

/// They went at once, and after a crash the checkpoint before missed them: the queues were built again from the whole log.
#[test]
fn the_files_of_a_deleted_topic_are_there_until_a_checkpoint_knows_of_it() {
    const PER_RECORD: u64 = 400;
    let disk = SimDisk::new();
    let (store, machine) = open_on(&disk);
    let shared = store.shared();
    let host = ([127, 0, 0, 1], 1).into();
    let message = NewMessage {
        topic: "orders".into(),
        queue_id: 0,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 0,
        born_host: host,
        store_timestamp: 0,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: Bytes::new(),
        properties: Bytes::new(),
    };
    for index in 0..UNITS_PER_FILE / PER_RECORD + 1 {
        let mut draft = Draft::new(RecordKind::Messages, 64 << 10);
        draft.messages = PER_RECORD as u32;
        (0..PER_RECORD).for_each(|_| message.encode(draft.payload_mut()).unwrap());
        let record = shared.log.append(EntryId { term: 1, index }, draft).unwrap();
        shared.queues.apply(&record, &mut Vec::new()).unwrap();
    }
    save_checkpoint(shared, machine.capture_here());
    let file = Path::new("/data/broker-a/consumequeue/orders/0/00000000000000000000");
    assert!(disk.exists(file).unwrap());
    commands::apply(shared, Command::DeleteTopic { name: "orders".into() }, EntryId { term: 1, index: 9 });
    let (first, end) = shared.queues.bounds("orders", 0).unwrap();
    assert_eq!(first, end);
    // Of before the deletion, though it is saved behind it.
    save_checkpoint(shared, machine.capture());
    assert!(disk.exists(file).unwrap(), "a crash now needs it");
    save_checkpoint(shared, machine.capture_here());
    assert!(!disk.exists(file).unwrap());
    shared.log.close();
}
