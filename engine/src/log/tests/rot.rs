//! Rot found while the log runs: never handed out (damage.I1), mended with a peer's record (damage.I2).

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use super::*;

/// Two logs with the same records.
fn replicas(count: u64) -> (tempfile::TempDir, CommitLog, tempfile::TempDir, CommitLog, Vec<Record>) {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let small = LogConfig { cache_bytes: 0, ..config() };
    let open = |dir: &Path| CommitLog::open(Arc::new(RealDisk), dir, small, StampBase::default()).unwrap();
    let (log, peer) = (open(one.path()), open(two.path()));
    let routes = [("t", 0), ("t", 1)];
    let records: Vec<Record> =
        (1..=count).map(|index| log.append(id(index), messages(&routes)).unwrap()).collect();
    for record in &records {
        peer.append_record(record.clone()).unwrap();
    }
    // Opened again, they have no record in memory any more.
    drop((log, peer));
    let (log, peer) = (open(one.path()), open(two.path()));
    (one, log, two, peer, records)
}

/// Flips a bit of the stored byte at `position`.
fn rot(dir: &Path, position: u64) {
    let base = segment::base_of(position, SEGMENT_BYTES);
    let path = segment::path_of(&dir.join("commitlog"), base);
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, position - base).unwrap();
    file.write_all_at(&[byte[0] ^ 4], position - base).unwrap();
}

fn mend_from(log: &CommitLog, peer: &CommitLog) {
    for damage in log.damages() {
        let record = peer.read(damage.index, damage.index + 1, 1).unwrap().remove(0);
        wait(|done| log.mend(record, done)).unwrap();
    }
}

#[test]
fn a_damaged_record_is_found_by_every_kind_of_read_and_mended_from_a_peer() {
    let (dir, log, _keep, peer, records) = replicas(60);
    for (at, record) in records.iter().enumerate().skip(3).step_by(7) {
        for offset in [0, 8, 30, 50, 64, 200] {
            let position = record.position() + offset;
            let inside = record.position() + 70;
            // What was read before is whole in memory, whatever becomes of the file.
            log.inner.shared.verified_cache.forget();
            rot(dir.path(), position);
            let index = record.header.index;
            let found = match at % 3 {
                0 => log.read(index, index + 1, 1).err(),
                1 => log.bytes(inside, 20).err(),
                _ => log.scrub(None, 60, u64::MAX).unwrap().damaged.then_some(ReadError::Changed),
            };
            assert!(found.is_some(), "damage.I1: record {index}, byte {offset}");
            let known = log.damages();
            assert_eq!((known.len(), known[0].position, known[0].index), (1, record.position(), index));
            mend_from(&log, &peer);
            assert_eq!(log.damages(), []);
            assert_eq!(log.bytes(inside, 20).unwrap(), record.frame().slice(70..90));
            assert_eq!(log.read(index, index + 1, 1).unwrap()[0].frame(), record.frame());
        }
    }
}

#[test]
fn bytes_that_were_read_stay_what_they_are_and_what_is_read_anew_is_verified_anew() {
    let (dir, log, _keep, peer, records) = replicas(40);
    let hit = &records[4];
    let held = log.bytes(hit.position() + 64, 100).unwrap();
    rot(dir.path(), hit.position() + 100);
    let path =
        segment::path_of(&dir.path().join("commitlog"), segment::base_of(hit.position(), SEGMENT_BYTES));
    let whole = std::fs::read(&path).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    assert_eq!(held, hit.frame()[64..164], "reads.I1");
    assert_eq!(log.bytes(hit.position() + 64, 100).unwrap(), held, "reads.I1: remembered, not mapped");
    std::fs::write(&path, whole).unwrap();
    log.inner.shared.verified_cache.forget();
    assert!(log.bytes(hit.position() + 64, 10).is_err(), "damage.I1");
    mend_from(&log, &peer);
    assert_eq!(log.bytes(hit.position() + 64, 100).unwrap(), held);
}

#[test]
fn only_the_record_that_belongs_there_is_taken() {
    let (dir, log, _keep, _peer, records) = replicas(40);
    let refused = |record: &Record| wait(|done| log.mend(record.clone(), done)).unwrap_err();
    assert!(matches!(refused(&records[7]), WriteError::Refused(_)), "damage.I2: nothing is damaged there");
    rot(dir.path(), records[7].position() + 90);
    log.read(8, 9, 1).unwrap_err();
    assert!(matches!(refused(&records[8]), WriteError::Refused(_)), "damage.I2: another place");
    let other = tempfile::tempdir().unwrap();
    let stranger = open(other.path());
    let strange: Vec<Record> =
        (1..=40).map(|index| stranger.append(id(index), messages(&[("t", 1), ("t", 0)])).unwrap()).collect();
    assert_eq!(strange[7].position(), records[7].position());
    assert!(
        matches!(refused(&strange[7]), WriteError::Refused(_)),
        "damage.I2: it does not continue its neighbours"
    );
    wait(|done| log.mend(records[7].clone(), done)).unwrap();
    assert_eq!(log.read(8, 9, 1).unwrap()[0].frame(), records[7].frame());
}

#[test]
fn the_scrub_passes_over_everything_once_and_waits_at_damage() {
    let (dir, log, _keep, peer, records) = replicas(60);
    let total: u64 = records.iter().map(|record| record.frame().len() as u64).sum();
    let (mut next, mut read, mut steps) = (None, 0, 0);
    loop {
        let scrubbed = log.scrub(next, 60, 500).unwrap();
        (next, read, steps) = (scrubbed.next, read + scrubbed.bytes, steps + 1);
        if next.is_none() {
            break;
        }
    }
    assert_eq!(read, total);
    assert!(steps > 10);
    let bad = &records[30];
    rot(dir.path(), bad.position() + 3);
    let stuck = log.scrub(None, 60, u64::MAX).unwrap();
    assert_eq!((stuck.next, stuck.damaged), (Some((31, bad.position())), true));
    assert!(log.is_damaged(bad.position()));
    mend_from(&log, &peer);
    assert_eq!(log.scrub(stuck.next, 60, u64::MAX).unwrap().next, None);
    assert_eq!(
        log.scrub(None, 10, u64::MAX).unwrap().bytes,
        records[..10].iter().map(|r| r.frame().len() as u64).sum::<u64>()
    );
}

#[test]
fn asking_for_bytes_where_no_record_is_is_not_damage() {
    let (_dir, log, _keep, _peer, records) = replicas(60);
    let last_of_segment = records.iter().rfind(|record| record.end() < SEGMENT_BYTES).unwrap();
    log.bytes(last_of_segment.end() + 1, 1).unwrap_err();
    let inside = records[3].position() + 100;
    let over = (records[3].end() - inside) as usize + 10;
    assert!(matches!(log.bytes(inside, over), Err(ReadError::Crossing { .. })));
    assert_eq!(log.damages(), []);
}
