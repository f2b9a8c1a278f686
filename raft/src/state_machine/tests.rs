//! What a checkpoint leaves on the disk.

use std::path::Path;

use bytes::Bytes;
use folio_engine::disk::Disk;
use folio_engine::disk::sim::SimDisk;
use folio_engine::queues::UNITS_PER_FILE;
use folio_engine::record::{Draft, EntryId};
use folio_protocol::message::NewMessage;
use folio_state::DeleteTopic;

use super::*;
use crate::storage_suite::open_on;

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
    commands::apply(shared, DeleteTopic { name: "orders".into() }.into(), EntryId { term: 1, index: 9 });
    let (first, end) = shared.queues.bounds("orders", 0).unwrap();
    assert_eq!(first, end);
    // Of before the deletion, though it is saved behind it.
    save_checkpoint(shared, machine.capture());
    assert!(disk.exists(file).unwrap(), "a crash now needs it");
    save_checkpoint(shared, machine.capture_here());
    assert!(!disk.exists(file).unwrap());
    shared.log.close();
}
