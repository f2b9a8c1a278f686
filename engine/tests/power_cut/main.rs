//! The commit log against a disk that loses power at every operation, or fails at any one of them.
//!
//! A seeded workload runs on a simulated disk; the model remembers what the log was after every request, and which
//! completions were called with `Ok`. Whatever the disk looks like afterwards, the log must open and be one of the
//! states since the last completion.
//!
//! The bounds
//! - `FOLIO_SIM_SEEDS` workloads of 60 requests, 2 if it is not set; segments of 4 KiB, records of up to 2 KiB.
//! - The power is cut before every disk operation of a workload. At each the extremes and two seeded outcomes are checked
//!   in full (open, compare, append, cut the power again), and of all combinations of lost, kept and torn unsynced
//!   operations (`EveryChoice`: a write is torn at up to three places) the first `FOLIO_SIM_OUTCOMES`, 250 if it is
//!   not set, are opened and compared: all there are at nine operations of ten.
//! - Every operation fails once with each of EIO, ENOSPC, a short write and a failed sync; every read of an opening fails
//!   once. Two faults in one run are left to the cluster's simulation (`tests/sim`).

mod bugs;
mod check;
mod model;
mod workload;

use std::collections::BTreeMap;

use folio_engine::disk::sim::{EveryChoice, Fault, KeepAll, LoseAll, SeededChoice, SimDisk};

use check::{after, after_restart, holds};
use workload::{Run, run};

/// Ways a power cut may turn out that are tried at each operation, besides the two extremes.
const CHOICES: u64 = 2;

fn seeds() -> u64 {
    number("FOLIO_SIM_SEEDS", 2)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|count| count.parse().ok()).unwrap_or(default)
}

#[test]
fn t10_the_workload_reaches_every_kind_of_change() {
    let mut counts = BTreeMap::new();
    for seed in 0..seeds() {
        let disk = SimDisk::new();
        let done = run(&disk, seed);
        assert_eq!(done.model.acknowledged(), done.model.last(), "seed {seed}: everything is acknowledged");
        done.counts.iter().for_each(|(kind, count)| *counts.entry(*kind).or_insert(0) += count);
        after(&disk.crash(&mut LoseAll), &done, &format!("seed {seed}"));
    }
    assert!(counts.values().all(|&count| count > 0), "{counts:?}");
}

#[test]
fn t20_a_power_cut_at_every_operation_loses_nothing_acknowledged() {
    for seed in 0..seeds() {
        each_prefix(seed, |disk, done, name| {
            after(&disk.crash(&mut LoseAll), done, &format!("{name} lose all"));
            after(&disk.crash(&mut KeepAll), done, &format!("{name} keep all"));
            for choice in 0..CHOICES {
                let left = disk.crash(&mut SeededChoice::new(choice));
                after(&left, done, &format!("{name} choice {choice}"));
            }
        });
    }
}

#[test]
fn t21_every_choice_of_lost_torn_and_reordered_writes_leaves_a_state_since_the_last_acknowledgement() {
    let outcomes = number("FOLIO_SIM_OUTCOMES", 250);
    let (mut whole, mut bounded) = (0, 0);
    each_prefix(0, |disk, done, name| {
        let mut choice = EveryChoice::default();
        let all = (0..outcomes).any(|outcome| {
            holds(&disk.crash(&mut choice), done, &format!("{name} outcome {outcome}"));
            !choice.next()
        });
        *if all { &mut whole } else { &mut bounded } += 1;
    });
    println!("all outcomes of {whole} cuts, the first {outcomes} of {bounded}");
    assert!(whole > 50, "{whole}");
}

#[test]
fn t30_a_killed_process_loses_nothing_and_what_it_left_is_durable_once_opened() {
    for seed in 0..seeds() {
        each_prefix(seed, |disk, done, name| {
            after_restart(&disk.kill(), done, &format!("{name} kill"));
        });
    }
}

fn each_prefix(seed: u64, mut check: impl FnMut(&SimDisk, &Run, &str)) {
    for cut in 0.. {
        let disk = SimDisk::new();
        disk.cut_power_at(cut);
        let done = run(&disk, seed);
        check(&disk, &done, &format!("seed {seed} cut {cut}"));
        if !disk.is_off() {
            assert!(cut > 100, "only {cut} operations");
            return;
        }
    }
}

#[test]
fn t40_a_failed_write_or_sync_at_any_operation_makes_no_completion_lie() {
    sweep(Fault::Eio);
}

#[test]
fn t41_a_full_disk_at_any_operation_makes_no_completion_lie() {
    sweep(Fault::Enospc);
}

#[test]
fn t42_a_short_write_at_any_operation_makes_no_completion_lie() {
    sweep(Fault::ShortWrite);
}

#[test]
fn t43_a_failed_sync_at_any_operation_makes_no_completion_lie() {
    sweep(Fault::FailSync);
}

fn sweep(fault: Fault) {
    for seed in 0..seeds() {
        let whole = SimDisk::new();
        run(&whole, seed);
        for op in 0..whole.ops() {
            let disk = SimDisk::new();
            disk.fail_at(op, fault);
            let done = run(&disk, seed);
            if disk.faults_struck() == 0 {
                continue;
            }
            let name = format!("seed {seed} {fault:?} at {op} ({:?})", disk.history().get(op));
            after(&disk.crash(&mut LoseAll), &done, &format!("{name} lose all"));
            after(&disk.crash(&mut SeededChoice::new(op as u64)), &done, &format!("{name} seeded"));
            after(&disk.kill(), &done, &format!("{name} kill"));
            after_restart(&disk.kill(), &done, &format!("{name} kill"));
        }
    }
}

#[test]
fn t50_a_disk_that_fills_up_hurts_nothing_acknowledged_and_is_outlived() {
    for seed in 0..seeds() {
        let whole = SimDisk::new();
        run(&whole, seed);
        for capacity in [0, 4096, whole.used() / 3, whole.used() / 2] {
            let disk = SimDisk::new();
            disk.set_capacity(Some(capacity));
            let roomy = disk.clone();
            let relief = std::thread::spawn(move || {
                std::thread::sleep(std::time::Duration::from_millis(300));
                roomy.set_capacity(None);
            });
            let done = run(&disk, seed);
            relief.join().expect("the relief ran");
            after(&disk.crash(&mut LoseAll), &done, &format!("seed {seed} capacity {capacity}"));
        }
    }
}

#[test]
fn t60_a_failed_read_while_opening_takes_nothing_away() {
    for seed in 0..seeds() {
        let whole = SimDisk::new();
        run(&whole, seed);
        // Cut short, so that the durable mark lags behind and recovery has only what it reads.
        for cut in (0..whole.ops()).step_by(5) {
            let disk = SimDisk::new();
            disk.cut_power_at(cut);
            let done = run(&disk, seed);
            let disk = disk.crash(&mut LoseAll);
            let whole = disk.kill();
            drop(workload::open(&whole, done.model.base()));
            for read in 0..whole.reads() {
                let disk = disk.kill();
                disk.fail_read_at(read);
                drop(workload::open(&disk, done.model.base()));
                after(&disk.kill(), &done, &format!("seed {seed} cut {cut} read {read}"));
            }
        }
    }
}
