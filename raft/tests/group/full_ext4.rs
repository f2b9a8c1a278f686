//! A node on a real, small ext4 that fills under load while retention is on (`room.I1`). Mounting takes root: where that is
//! missing the test says that it was skipped.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use folio_engine::disk::RealDisk;
use folio_raft::config::{Flush, GroupConfig, Retention, Scrub, Timing};
use folio_raft::group::Group;
use folio_raft::proposal::{Proposal, ProposeError, Repeat};
use folio_raft::status::Role;
use folio_raft::types::NodeAddress;
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::cluster::{NoHooks, message};

/// Nothing a test waits for takes longer, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(120);
const DISK_BYTES: u64 = 48 << 20;
const SEGMENT_BYTES: u64 = 4 << 20;
const KEPT_BYTES: u64 = 8 << 20;
const BODY_BYTES: usize = 64 << 10;

/// An ext4 of its own size, in a file.
struct Ext4(TempDir);

impl Ext4 {
    fn mount() -> Option<Ext4> {
        let ext4 = Ext4(tempfile::tempdir().unwrap());
        let image = ext4.0.path().join("image");
        File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        fs::create_dir(ext4.path()).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).output();
        let mounted = made.is_ok_and(|made| made.status.success())
            && Command::new("mount")
                .args(["-o", "loop"])
                .args([&image, &ext4.path()])
                .output()
                .is_ok_and(|mounted| mounted.status.success());
        if !mounted {
            println!("skipped: mounting an ext4 needs root, mkfs.ext4 and a loop device");
        }
        mounted.then_some(ext4)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("disk")
    }

    /// Somebody else takes every block that is left.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("stranger");
        let mut file = File::create(&path).unwrap();
        for bytes in [1 << 20, 4096, 512] {
            while file.write_all(&vec![1; bytes]).is_ok() {}
        }
        path
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.path()).status());
    }
}

async fn start(dir: &Path, retain: Option<u64>) -> Group {
    let config = GroupConfig {
        node_id: 1,
        cluster: "c".into(),
        group: "g".into(),
        data_dir: dir.join("data"),
        segment_bytes: SEGMENT_BYTES,
        nodes: [(1, NodeAddress::default())].into(),
        dial: Default::default(),
        join: false,
        single_node: true,
        listen: ([127, 0, 0, 1], 0).into(),
        flush: Flush::Sync,
        timing: Timing::default(),
        retention: Retention { age: None, bytes: retain, interval: Duration::from_millis(300) },
        scrub: Scrub { bytes_per_second: 0, ..Scrub::default() },
        secret: None,
        dedup: None,
    };
    let started = Group::start(config, Arc::new(RealDisk), Arc::new(NoHooks));
    let group = tokio::time::timeout(PATIENCE, started).await.unwrap().unwrap();
    let mut status = group.watch();
    let leads = status.wait_for(|status| status.role == Role::Leader);
    tokio::time::timeout(PATIENCE, leads).await.unwrap().unwrap();
    group
}

async fn send(group: &Group) -> Result<u64, ProposeError> {
    let message = message(0, vec![b'x'; BODY_BYTES]);
    let (answer, answered) = oneshot::channel();
    let reply = Box::new(move |result| drop(answer.send(result)));
    group
        .propose(Proposal { messages: vec![message], repeat: Repeat::Store, reply })
        .map_err(|(_, error)| error)?;
    let receipt = tokio::time::timeout(PATIENCE, answered).await.unwrap().unwrap()?;
    Ok(receipt.queue_offsets[0])
}

#[track_caller]
fn is_well(group: &Group) {
    assert_eq!(group.log().state().poisoned, None, "room.I1");
    assert!(!matches!(group.status().role, Role::Stopped(_)), "room.I1: {:?}", group.status().role);
}

/// Sends until so many messages more are stored, whatever is refused meanwhile; the last one's offset.
async fn store(group: &Group, count: u64) -> u64 {
    let (deadline, mut stored, mut last) = (Instant::now() + PATIENCE, 0, 0);
    while stored < count {
        match send(group).await {
            Ok(offset) => (stored, last) = (stored + 1, offset),
            Err(error) => {
                assert!(Instant::now() < deadline, "{stored} of {count} stored: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        is_well(group);
    }
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_makes_room_on_a_full_ext4_and_the_node_serves_again_by_itself() {
    let Some(disk) = Ext4::mount() else { return };
    let group = start(&disk.path(), None).await;
    let mut stored = 0;
    let refused = loop {
        match send(&group).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 2 * DISK_BYTES / BODY_BYTES as u64, "it stores more than its disk holds");
    };
    assert_eq!(refused, ProposeError::DiskFull);
    is_well(&group);
    group.shutdown().await;
    drop(group);
    // Not one block is left for the next start.
    let stranger = disk.fill();
    let group = start(&disk.path(), Some(KEPT_BYTES)).await;
    store(&group, 1).await;
    assert!(group.log().state().start_position > 0, "retention made the room");

    // Under load for some times what the disk holds, with the stranger's file in the way all the time.
    let before = group.log().state().next_position;
    store(&group, 3 * DISK_BYTES / BODY_BYTES as u64).await;
    assert!(group.log().state().start_position > before, "retention goes on");

    fs::remove_file(&stranger).unwrap();
    let last = store(&group, 20).await;
    let stranger = disk.fill();
    let deadline = Instant::now() + PATIENCE;
    while send(&group).await.is_ok() {
        assert!(Instant::now() < deadline, "a full disk takes everything");
    }
    is_well(&group);
    assert!(!group.queues().units("orders", 0, last, 1).unwrap().is_empty());
    fs::remove_file(&stranger).unwrap();
    store(&group, 20).await;
    group.shutdown().await;
}
