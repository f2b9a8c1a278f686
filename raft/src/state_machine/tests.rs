//! What a checkpoint leaves on the disk.

use std::path::Path;

use folio_engine::disk::Disk;
use folio_engine::disk::sim::SimDisk;
use folio_engine::queues::UNITS_PER_FILE;
use folio_engine::record::{Draft, EntryId};
use folio_state::{Command, DeleteTopic, NoteSentBack, QueueRef};

use super::*;
use crate::storage_suite::{message, open_on};

/// They went at once, and after a crash the checkpoint before missed them: the queues were built again from the whole log.
#[test]
fn the_files_of_a_deleted_topic_are_there_until_a_checkpoint_knows_of_it() {
    const PER_RECORD: u64 = 400;
    let disk = SimDisk::new();
    let (store, machine) = open_on(&disk);
    let shared = store.shared();
    let message = message("orders", 0);
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

/// A driver's mistake: seen on every replica alike, and never a different state.
#[test]
fn transitions_i2_a_move_that_was_made_before_is_applied_and_told() {
    let (store, _machine) = open_on(&SimDisk::new());
    let shared = store.shared();
    let note = |offset| {
        let queue = QueueRef { topic: "orders".into(), queue: 0 };
        Command::from(NoteSentBack { group: "g".into(), queue, offset, position: 7 })
    };
    let unmet = || shared.unmet_preconditions.load(Ordering::Relaxed);
    commands::apply_all(shared, vec![note(1), note(2)], EntryId { term: 1, index: 8 });
    assert_eq!(unmet(), 0);
    // The second one by what the first one has changed.
    commands::apply_all(shared, vec![note(3), note(3)], EntryId { term: 1, index: 9 });
    assert_eq!((unmet(), shared.state.read().sent_back().count()), (1, 3));
    // A state that was made again has the effects of the entries up to there already (`snapshots.I3`).
    shared.ordered_as_of.store(20, Ordering::Relaxed);
    let before = shared.state.read().clone();
    commands::apply_all(shared, vec![note(1), note(4)], EntryId { term: 1, index: 20 });
    assert_eq!((unmet(), &*shared.state.read()), (1, &before));
    commands::apply_all(shared, vec![note(4)], EntryId { term: 1, index: 21 });
    assert_eq!((unmet(), shared.state.read().sent_back().count()), (1, 4));
    shared.log.close();
}
