//! Derived structures that are deleted, each for itself: it is built again from the log, and the others go on.

use std::path::Path;
use std::time::{Duration, Instant};

use folio_engine::disk::Disk;
use folio_engine::disk::sim::SimDisk;
use folio_raft::group::Group;

use crate::cluster::{NoHooks, PATIENCE};
use crate::one_node::{send_under, start_with};

/// Enough for several segments.
const MESSAGES: u64 = 300;

async fn start(disk: &SimDisk) -> Group {
    start_with(disk.clone(), None, NoHooks).await
}

/// Waits until the key index knows all that is applied.
async fn is_up(group: &Group) {
    let deadline = Instant::now() + PATIENCE;
    while !group.is_key_index_up() || group.queues().bounds("orders", 0).is_none_or(|(_, end)| end < MESSAGES)
    {
        assert!(Instant::now() < deadline, "{:?}", group.status());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Each message is found once, where its unit says.
fn check(group: &Group) {
    let units = group.queues().units("orders", 0, 0, 1_000).unwrap();
    assert_eq!(units.len() as u64, MESSAGES);
    for (number, unit) in units.iter().enumerate() {
        let key = format!("key-{number}");
        let found = group.keys().positions("orders", &key, u64::MAX, 10, &(0..=i64::MAX)).unwrap();
        assert_eq!(found, [unit.position], "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn derived_i6_a_deleted_structure_is_built_again_while_the_others_go_on() {
    let mut disk = SimDisk::new();
    let group = start(&disk).await;
    for number in 0..MESSAGES {
        send_under(&group, 500, Some(&format!("key-{number}"))).await.unwrap();
    }
    is_up(&group).await;
    check(&group);
    group.shutdown().await;
    for gone in [&["keyindex"][..], &["consumequeue"], &["checkpoint"], &["keyindex", "consumequeue"], &[]] {
        disk = disk.kill();
        for name in gone {
            let path = Path::new("/data").join(name);
            match disk.list(&path) {
                Ok(_) => disk.remove_dir_all(&path).unwrap(),
                Err(_) => disk.remove(&path).unwrap(),
            }
        }
        let group = start(&disk).await;
        is_up(&group).await;
        check(&group);
        group.shutdown().await;
    }
}
