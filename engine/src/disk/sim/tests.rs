//! The simulated disk keeps its promises: what is durable stays, what is not may go, faults strike where planned.

use std::io::{ErrorKind, IoSlice};
use std::path::Path;
use std::sync::Arc;

use super::super::write_atomically;
use super::*;

fn put(disk: &SimDisk, path: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.open(Path::new(path), OpenMode::Create).unwrap();
    file.write_all_at(&[IoSlice::new(bytes)], 0).unwrap();
    file
}

fn content(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    disk.dump().remove(Path::new(path)).flatten()
}

#[test]
fn a_synced_file_without_a_synced_name_is_lost() {
    let disk = SimDisk::new();
    put(&disk, "/f", b"abc").sync_data().unwrap();
    assert_eq!(content(&disk.crash(&mut LoseAll), "/f"), None);
    assert_eq!(content(&disk.kill(), "/f").as_deref(), Some(b"abc".as_slice()));
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(content(&disk.crash(&mut LoseAll), "/f").as_deref(), Some(b"abc".as_slice()));
}

#[test]
fn a_file_is_lost_with_its_unsynced_directory() {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/a/b")).unwrap();
    put(&disk, "/a/b/f", b"abc").sync_data().unwrap();
    disk.sync_dir(Path::new("/a/b")).unwrap();
    disk.sync_dir(Path::new("/a")).unwrap();
    assert!(disk.crash(&mut LoseAll).dump().is_empty());
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(content(&disk.crash(&mut LoseAll), "/a/b/f").as_deref(), Some(b"abc".as_slice()));
}

#[test]
fn changes_of_a_directory_are_kept_in_order() {
    let disk = SimDisk::new();
    for name in ["/1", "/2", "/3"] {
        put(&disk, name, b"");
    }
    disk.remove(Path::new("/1")).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let names: Vec<_> = disk.crash(&mut SeededChoice::new(seed)).dump().into_keys().collect();
        seen.insert(names.iter().map(|name| name.to_string_lossy().into_owned()).collect::<String>());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["", "/1", "/1/2", "/1/2/3", "/2/3"]);
}

#[test]
fn a_removed_file_may_come_back_until_its_directory_is_synced() {
    let disk = SimDisk::new();
    put(&disk, "/f", b"abc").sync_data().unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk.remove(Path::new("/f")).unwrap();
    assert_eq!(content(&disk.crash(&mut LoseAll), "/f").as_deref(), Some(b"abc".as_slice()));
    disk.sync_dir(Path::new("/")).unwrap();
    assert!(disk.crash(&mut LoseAll).dump().is_empty());
}

#[test]
fn what_is_synced_in_a_directory_made_again_does_not_go_with_the_old_one() {
    let disk = SimDisk::new();
    let (root, dir) = (Path::new("/"), Path::new("/d"));
    let fill = |bytes: &[u8]| {
        disk.create_dir_all(dir).unwrap();
        put(&disk, "/d/f", bytes).sync_data().unwrap();
        disk.sync_dir(dir).unwrap();
    };
    fill(b"old");
    disk.sync_dir(root).unwrap();
    disk.remove_dir_all(dir).unwrap();
    fill(b"new");
    disk.sync_dir(root).unwrap();
    assert_eq!(content(&disk.crash(&mut LoseAll), "/d/f").as_deref(), Some(b"new".as_slice()));
}

#[test]
fn an_atomic_write_leaves_the_old_bytes_or_the_new_at_every_prefix() {
    let new: &[u8] = &[2; 5000];
    let start = SimDisk::new();
    write_atomically(&start, Path::new("/f"), b"old").unwrap();
    for prefix in 0.. {
        let disk = start.kill();
        disk.cut_power_at(prefix);
        let written = write_atomically(&disk, Path::new("/f"), new).is_ok();
        for seed in 0..50 {
            let left = content(&disk.crash(&mut SeededChoice::new(seed)), "/f").unwrap();
            assert!(left == new || (!written && left == b"old"), "prefix {prefix} seed {seed}: {left:?}");
        }
        if written {
            break;
        }
    }
}

#[test]
fn a_rename_without_a_sync_before_it_can_leave_an_empty_file() {
    let disk = SimDisk::new();
    put(&disk, "/f.tmp", b"new");
    disk.rename(Path::new("/f.tmp"), Path::new("/f")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(content(&disk.crash(&mut LoseAll), "/f").as_deref(), Some(b"".as_slice()));
}

#[test]
fn a_full_disk_refuses_what_needs_more_and_takes_what_was_reserved() {
    let disk = SimDisk::new();
    let file = disk.open(Path::new("/f"), OpenMode::Create).unwrap();
    disk.set_capacity(Some(10_000));
    file.allocate(8192).unwrap();
    assert_eq!(file.allocate(12_288).unwrap_err().kind(), ErrorKind::StorageFull);
    file.write_all_at(&[IoSlice::new(&[1; 8192])], 0).unwrap();
    assert_eq!(file.write_all_at(&[IoSlice::new(&[1])], 8192).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!((disk.used(), file.len().unwrap()), (8192, 8192));
    disk.set_capacity(Some(12_288));
    file.write_all_at(&[IoSlice::new(&[1])], 8192).unwrap();
    disk.remove(Path::new("/f")).unwrap();
    assert_eq!(disk.used(), 12_288);
    drop(file);
    assert_eq!(disk.used(), 0);
}

/// As seen on ext4: see the module.
#[test]
fn a_full_disk_has_no_block_for_a_directory_or_for_names_that_fill_one_and_gives_none_for_empty_files() {
    let disk = SimDisk::new();
    let (full, dir) = (Some(ErrorKind::StorageFull), Path::new("/d"));
    let create = |name: &str| disk.open(&dir.join(name), OpenMode::Create).map(drop).err().map(|e| e.kind());
    disk.set_capacity(Some(0));
    assert_eq!(disk.create_dir_all(dir).err().map(|error| error.kind()), full);
    disk.set_capacity(Some(4096));
    disk.create_dir_all(dir).unwrap();
    let created = (0..200).take_while(|number| create(&number.to_string()).is_none()).count();
    assert_eq!((created, create("one-more")), (128, full));
    disk.rename(&dir.join("0"), &dir.join("1")).unwrap();
    assert_eq!(create("one-more"), None);
    let file = disk.open(&dir.join("2"), OpenMode::ReadWrite).unwrap();
    file.set_len(1 << 20).unwrap();
    let write = file.write_all_at(&[IoSlice::new(&[1])], 5000);
    assert_eq!(write.err().map(|error| error.kind()), full, "a hole has no block");
    assert_eq!(disk.used(), 4096);
}

#[test]
fn faults_strike_the_operation_they_were_planned_for() {
    let disk = SimDisk::new();
    disk.fail_at(0, Fault::FailSync);
    disk.fail_at(1, Fault::ShortWrite);
    disk.fail_at(2, Fault::Eio);
    disk.fail_at(3, Fault::FailSync);
    disk.fail_read_at(1);
    let file = disk.open(Path::new("/f"), OpenMode::Create).unwrap();
    let write = |bytes: &[u8]| file.write_all_at(&[IoSlice::new(bytes)], 0).map_err(|error| error.kind());
    assert_eq!(write(b"abcdef"), Err(ErrorKind::StorageFull));
    assert_eq!(file.len().unwrap_err().raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    assert_eq!(file.len().unwrap(), 3);
    assert!(write(b"ABC").is_err());
    assert!(file.sync_data().is_err());
    assert_eq!(content(&disk, "/f").as_deref(), Some(b"abc".as_slice()));
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(content(&disk.crash(&mut LoseAll), "/f").as_deref(), Some(b"".as_slice()));
    assert_eq!((disk.faults_struck(), disk.ops()), (4, 6));
}

#[test]
fn faults_on_a_path_pass_over_what_happens_elsewhere() {
    let disk = SimDisk::new();
    let create = |path: &str| disk.open(Path::new(path), OpenMode::Create).unwrap();
    let (file, other) = (create("/f"), create("/g"));
    let write = |file: &dyn DiskFile| file.write_all_at(&[IoSlice::new(b"abc")], 0);
    disk.fail_on(Path::new("/f"), 1, Fault::Eio);
    disk.fail_on(Path::new("/f"), 0, Fault::FailSync);
    write(&*other).unwrap();
    other.sync_data().unwrap();
    write(&*file).unwrap();
    assert!(write(&*file).is_err());
    write(&*file).unwrap();
    assert_eq!(disk.faults_struck(), 1);
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(disk.faults_struck(), 2);
}

#[test]
fn without_power_nothing_works_and_nothing_changes() {
    let disk = SimDisk::new();
    let file = put(&disk, "/f", b"abc");
    disk.cut_power_at(2);
    assert!(file.sync_data().is_err());
    assert!(disk.is_off() && file.len().is_err() && disk.exists(Path::new("/f")).is_err());
    assert!(disk.create_dir_all(Path::new("/d")).is_err());
    assert_eq!(disk.ops(), 2);
}

#[test]
fn prefixes_are_run_one_by_one_to_the_end() {
    let lengths = Mutex::new(Vec::new());
    let run = |disk: &SimDisk| drop(write_atomically(disk, Path::new("/f"), b"x"));
    let ops = for_each_prefix(run, |disk, prefix| {
        assert_eq!(disk.ops(), prefix);
        lengths.lock().push(disk.crash(&mut KeepAll).dump().len());
    });
    // Create, set_len, write, sync, rename, sync of the directory.
    assert_eq!((ops, lengths.into_inner()), (6, vec![0, 1, 1, 1, 1, 1, 1]));
}

#[test]
fn a_lock_is_free_after_a_crash() {
    let disk = SimDisk::new();
    let held = disk.lock(Path::new("/LOCK")).unwrap();
    assert_eq!(disk.lock(Path::new("/LOCK")).err().map(|error| error.kind()), Some(ErrorKind::WouldBlock));
    disk.crash(&mut LoseAll).lock(Path::new("/LOCK")).unwrap();
    drop(held);
    disk.lock(Path::new("/LOCK")).unwrap();
}

#[test]
fn a_flipped_bit_is_rot_that_stays() {
    let disk = SimDisk::new();
    put(&disk, "/f", b"abc").sync_data().unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk.flip_bit(Path::new("/f"), 1, 0).unwrap();
    assert_eq!(content(&disk.crash(&mut LoseAll), "/f").as_deref(), Some(b"acc".as_slice()));
    assert!(disk.flip_bit(Path::new("/f"), 3, 0).is_err());
}

#[test]
fn a_directory_is_removed_name_by_name() {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/d/e")).unwrap();
    put(&disk, "/d/e/f", b"1");
    put(&disk, "/d/g", b"2");
    assert_eq!(disk.list(Path::new("/d")).unwrap(), [Path::new("/d/e"), Path::new("/d/g")]);
    let before = disk.ops();
    disk.remove_dir_all(Path::new("/d")).unwrap();
    assert_eq!(disk.ops() - before, 4);
    assert!(disk.dump().is_empty());
}

/// A workload by seed, then a crash by the same seed.
fn run(seed: u64) -> (Vec<Operation>, BTreeMap<PathBuf, Option<Vec<u8>>>) {
    let disk = SimDisk::new();
    let mut random = SeededChoice::new(seed);
    for step in 0..200u64 {
        let path = format!("/d{}/f{}", random.below(2), random.below(5));
        let path = Path::new(&path);
        let directory = path.parent().unwrap();
        disk.create_dir_all(directory).unwrap();
        let file = disk.open(path, OpenMode::Create).unwrap();
        match random.below(7) {
            0 => file.sync_data().unwrap(),
            1 => disk.sync_dir(directory).unwrap(),
            2 => disk.remove(path).unwrap(),
            3 => disk.rename(path, &directory.join("moved")).unwrap(),
            4 => file.set_len(random.below(3000)).unwrap(),
            _ => {
                let bytes = vec![step as u8; random.below(3000) as usize];
                file.write_all_at(&[IoSlice::new(&bytes)], random.below(3000)).unwrap();
            }
        }
    }
    (disk.history(), disk.crash(&mut SeededChoice::new(seed)).dump())
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed));
    }
    assert_ne!(run(1), run(2));
}
