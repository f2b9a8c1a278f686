//! `log.I4`: whoever finds a vote on disk finds the log that was appended before it.
//!
//! Raft counts on it twice. openraft takes the acknowledgement of a vote for one of every append before it, so a leader
//! would be told that an entry is here which a power cut takes away again; and a vote is given to a candidate whose log
//! is compared with this one, which must not be shorter after the restart.

use super::steps::Steps;
use super::*;
use crate::disk::sim::{EveryChoice, SimDisk};
use crate::planted;

const ENTRIES: u64 = 3;
const VOTE: &[u8] = b"term 2";

/// Cuts the power at every disk operation of a vote behind three appends that are not durable yet, in every way it can
/// turn out. Returns the number of outcomes, or the first one with the vote and without the log.
fn every_power_cut() -> Result<usize, String> {
    let mut outcomes = 0;
    for cut in 0.. {
        let steps = Steps::open(SimDisk::new());
        steps.step();
        let first = steps.disk.ops();
        steps.disk.cut_power_at(first + cut);
        for index in 1..=ENTRIES {
            steps.log.append(id(index), command(700)).unwrap();
        }
        steps.log.save_vote(VOTE, Box::new(|_| {}));
        steps.step();
        let mut choice = EveryChoice::default();
        loop {
            outcomes += 1;
            check(&steps.disk.crash(&mut choice))
                .map_err(|found| format!("after {cut} operations: {found}"))?;
            if !choice.next() {
                break;
            }
        }
        if !steps.disk.is_off() {
            break;
        }
    }
    Ok(outcomes)
}

/// The vote implies the log before it.
fn check(disk: &SimDisk) -> Result<(), String> {
    let log = Steps::open(disk.clone()).log;
    let last = log.state().last.map_or(0, |last| last.index);
    if log.vote().as_deref() == Some(VOTE) && last < ENTRIES {
        return Err(format!("the vote is there, and of {ENTRIES} entries before it {last}"));
    }
    Ok(())
}

#[test]
fn a_power_cut_never_leaves_a_vote_without_the_log_before_it() {
    let outcomes = every_power_cut().unwrap();
    assert!(outcomes > 100, "{outcomes}");
}

#[test]
fn a_vote_that_is_durable_before_the_log_before_it_is_noticed() {
    let noticed = planted::with("vote-before-log", every_power_cut).unwrap_err();
    assert!(noticed.ends_with("of 3 entries before it 0"), "{noticed}");
}
