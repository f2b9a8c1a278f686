//! What waits is carried forward on a full disk, too: a delayed message, a half message, one in flight by POP (`room.I2`).

use std::time::{Duration, Instant};

use folio_engine::disk::sim::SimDisk;
use folio_raft::driver::outcome;
use folio_raft::group::Group;
use folio_raft::proposal::ProposeError;
use folio_state::{BatchId, FEATURE_LEVEL, PopMessages, PopQueue};

use super::{
    HOUR, PATIENCE, SEGMENT_BYTES, Setup, USUAL, eventually, is_well, send, send_messages, serves_again,
    start, stop,
};
use crate::timers::{delayed, now_ms};
use crate::transactions::half_message;

/// Before: what makes the room was refused for want of room, and the group stood still until an operator made some.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_whose_oldest_segment_holds_what_waits_dropped_nothing() {
    let disk = SimDisk::new();
    let group = start(&disk, USUAL).await;
    let deadline = Instant::now() + PATIENCE;
    while !eventually("the feature level", deadline, group.status().feature_level >= FEATURE_LEVEL) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let hour_ms = HOUR.as_millis() as u64;
    for message in [half_message(1), delayed(2, now_ms() + hour_ms)] {
        send_messages(&group, vec![message]).await.unwrap();
    }
    let popped = popped(&group).await;
    disk.set_capacity(Some(disk.used() + 6 * SEGMENT_BYTES));
    while send(&group, 1, 500).await != Err(ProposeError::DiskFull) {
        assert!(group.log().state().next_position < 20 * SEGMENT_BYTES, "the disk is not full");
    }
    stop(group).await;
    let group = start(&disk, Setup { retain: Some(2 * SEGMENT_BYTES), ..USUAL }).await;
    let deadline = Instant::now() + PATIENCE;
    while !eventually("old segments go", deadline, group.log().state().start_position > SEGMENT_BYTES) {
        is_well(&group);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    serves_again(&group).await;
    is_well(&group);
    assert_eq!(group.state().transactions().count(), 1, "transactions.I3");
    let (timers, log) = (group.state().timers().clone(), group.log().state());
    let range = (log.start_position, log.next_position);
    let pending = group.timers().lying(timers.watermark(), range, 2, |entry| timers.is_pending(entry.key));
    assert_eq!(pending.unwrap().len(), 1, "timers.I5");
    assert!(group.popped_message(&popped, 0).unwrap().is_some(), "pop.I4");
}

/// A message that is in flight for an hour.
async fn popped(group: &Group) -> PopQueue {
    let receipt = send(group, 1, 500).await.unwrap();
    let queue = PopQueue { group: "g".into(), topic: "orders".into(), queue: 0 };
    let pop = PopMessages {
        queue: queue.clone(),
        from: None,
        next: 1,
        id: BatchId { start: 0, popped_ms: now_ms() },
        diffs: vec![0],
        position: receipt.positions[0],
        visible_ms: now_ms() + HOUR.as_millis() as u64,
        retry_v2: false,
        attempt: None,
    };
    outcome(|reply| group.pop(pop, reply)).await.unwrap();
    assert!(group.popped_message(&queue, 0).unwrap().is_some());
    queue
}
