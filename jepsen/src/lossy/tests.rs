//! Through the kernel: what a process sees of the disk.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::*;

struct Fixture {
    disk: Disk,
    at: PathBuf,
    _dir: tempfile::TempDir,
}

/// A mounted disk, or `None` with the reason printed: such a test is skipped by name.
fn fixture() -> Option<Fixture> {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("at");
    match Disk::mount(&dir.path().join("disk"), &at, 1) {
        Ok(disk) => Some(Fixture { disk, at, _dir: dir }),
        Err(error) => {
            eprintln!("skipped: FUSE is missing: {error:#}");
            None
        }
    }
}

fn create(path: &std::path::Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn sync_dir(path: &std::path::Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

#[test]
fn unsynced_bytes_are_read_back_until_the_power_goes_and_then_they_are_gone() {
    let Some(Fixture { disk, at, _dir }) = fixture() else { return };
    let path = at.join("file");
    let file = create(&path);
    sync_dir(&at);
    file.write_all_at(&[1; 10_000], 0).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(&[2; 10_000], 5_000).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), [vec![1; 5_000], vec![2; 10_000]].concat());
    drop(file);
    let losses = disk.cut(Loss::All, &mut Dice::new(1)).unwrap();
    assert!(losses.sectors_lost >= 20, "{losses:?}");
    assert_eq!(std::fs::read(&path).unwrap(), [1; 10_000], "the page cache hides the loss");
}

#[test]
fn writes_show_through_the_page_cache() {
    let Some(Fixture { disk: _disk, at, _dir }) = fixture() else { return };
    let path = at.join("file");
    let mut file = create(&path);
    file.set_len(64 << 10).unwrap();
    // Every read fills the cache; every write must show through it.
    for round in 0..50_u8 {
        let offset = u64::from(round) * 1000 + 7;
        file.write_all_at(&[round + 1; 900], offset).unwrap();
        let mut seen = [0; 900];
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.read_exact(&mut seen).unwrap();
        assert_eq!(seen, [round + 1; 900]);
    }
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 64 << 10);
}

#[test]
fn a_process_can_map_a_file_and_sees_what_is_written_later() {
    let Some(Fixture { disk: _disk, at, _dir }) = fixture() else { return };
    // Python maps shared, as the nodes do; there is no safe way to do it from here.
    let script = "
import mmap, os, sys
f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.posix_fallocate(f, 0, 65536)
m = mmap.mmap(f, 65536, mmap.MAP_SHARED, mmap.PROT_READ)
assert m[5000:5004] == bytes(4)
os.pwrite(f, b'abcd', 5000)
assert m[5000:5004] == b'abcd', m[5000:5004]
";
    let python = Command::new("python3").args(["-c", script]).arg(at.join("file")).output();
    let Ok(output) = python else {
        eprintln!("skipped: python3 is missing");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_name_is_gone_unless_its_directory_was_synced() {
    let Some(Fixture { disk, at, _dir }) = fixture() else { return };
    std::fs::create_dir(at.join("folder")).unwrap();
    sync_dir(&at);
    for name in ["old", "new"] {
        let mut file = create(&at.join("folder").join(name));
        file.write_all(name.as_bytes()).unwrap();
        file.sync_all().unwrap();
        if name == "old" {
            sync_dir(&at.join("folder"));
        }
    }
    std::fs::rename(at.join("folder/new"), at.join("folder/old")).unwrap();
    assert_eq!(std::fs::read(at.join("folder/old")).unwrap(), b"new");
    disk.cut(Loss::All, &mut Dice::new(1)).unwrap();
    assert_eq!(std::fs::read(at.join("folder/old")).unwrap(), b"old");
    assert!(!at.join("folder/new").exists());
}

#[test]
fn a_failed_sync_reaches_the_process_and_takes_its_bytes_with_it() {
    let Some(Fixture { disk, at, _dir }) = fixture() else { return };
    let path = at.join("vote");
    let file = create(&path);
    sync_dir(&at);
    file.write_all_at(b"gone", 0).unwrap();
    let syncs = Some(Failing { class: Some(Class::Vote), times: 1 });
    disk.set_faults(Faults { syncs, ..Faults::default() });
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(Errno::IO.raw_os_error()));
    file.sync_data().expect("the next one seems to work");
    assert_eq!(disk.hits().syncs, 1);
    drop(file);
    disk.cut(Loss::None, &mut Dice::new(1)).unwrap();
    assert_ne!(std::fs::read(&path).unwrap(), b"gone");
}

#[test]
fn a_full_disk_and_a_broken_one_say_so_and_work_again() {
    let Some(Fixture { disk, at, _dir }) = fixture() else { return };
    let file = create(&at.join("file"));
    file.write_all_at(&[1; 8192], 0).unwrap();
    disk.set_faults(Faults { capacity: Some(disk.used()), ..Faults::default() });
    assert_eq!(file.write_all_at(&[1; 8192], 8192).unwrap_err().kind(), ErrorKind::StorageFull);
    file.write_all_at(&[2; 8192], 0).unwrap();
    let writes = Some(Failing { class: None, times: 1 });
    disk.set_faults(Faults { writes, ..Faults::default() });
    assert!(file.write_all_at(b"x", 0).is_err());
    file.write_all_at(&[3; 16_384], 0).unwrap();
    assert_eq!((disk.hits().full, disk.hits().writes), (1, 1));
}

#[test]
fn a_slow_disk_is_slow_at_syncs_and_at_nothing_else() {
    let Some(Fixture { disk, at, _dir }) = fixture() else { return };
    // The kernel lets nobody write to the very file that is being synced.
    let (file, other) = (create(&at.join("file")), create(&at.join("other")));
    let slow = Duration::from_millis(700);
    disk.set_faults(Faults { slow: Some((slow, slow)), ..Faults::default() });
    // On a machine that stalls the writes may take as long as the sync, but not every time.
    let overtaken = (1..=10).any(|round| {
        file.write_all_at(&[2; 4096], 0).unwrap();
        let started = Instant::now();
        let overtaken = std::thread::scope(|scope| {
            let sync = scope.spawn(|| file.sync_data().unwrap());
            while disk.hits().slow < round {
                std::thread::yield_now();
            }
            for _ in 0..20 {
                other.write_all_at(&[1; 4096], 0).unwrap();
            }
            !sync.is_finished()
        });
        assert!(started.elapsed() >= slow);
        overtaken
    });
    assert!(overtaken, "other writes waited for the sync");
}

#[test]
fn whole_trees_are_removed_and_files_outlive_the_mount() {
    let Some(Fixture { disk, at, _dir }) = fixture() else { return };
    for number in 0..300 {
        std::fs::create_dir_all(at.join(format!("tree/{}", number % 7))).unwrap();
        std::fs::write(at.join(format!("tree/{}/{number}", number % 7)), b"x").unwrap();
    }
    std::fs::remove_dir_all(at.join("tree")).unwrap();
    assert_eq!(std::fs::read_dir(&at).unwrap().count(), 0);
    std::fs::write(at.join("kept"), b"bytes").unwrap();
    drop(disk);
    assert_eq!(std::fs::read(at.join("kept")).unwrap(), b"bytes");
}

#[test]
fn a_disk_that_another_mount_namespace_holds_is_unmounted_in_time_and_its_files_are_kept() {
    let Some(Fixture { disk, at, _dir }) = fixture() else { return };
    std::fs::write(at.join("kept"), b"bytes").unwrap();
    // A namespace made now has a copy of the mount, which stays when ours goes.
    let holder = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", "echo holding; exec sleep 60"])
        .stdout(std::process::Stdio::piped())
        .spawn();
    let Ok(mut holder) = holder else {
        eprintln!("skipped: mount namespaces: there is no unshare");
        return;
    };
    let mut said = [0; 7];
    let holds = holder.stdout.take().unwrap().read_exact(&mut said).is_ok();
    let (done, unmounted) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(disk);
        let _ = done.send(());
    });
    let in_time = unmounted.recv_timeout(Duration::from_secs(20));
    holder.kill().unwrap();
    holder.wait().unwrap();
    if !holds {
        eprintln!("skipped: mount namespaces: it takes root");
        return;
    }
    in_time.expect("the unmount waits for a mount that another namespace holds");
    assert_eq!(std::fs::read(at.join("kept")).unwrap(), b"bytes");
}
