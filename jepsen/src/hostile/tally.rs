//! What an attack got through: without it, an attack that does nothing would pass for one that was borne.
//!
//! - `hostile.I1`: an attack that got less through than its floor has not attacked, and fails.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

/// Counts while an attack runs; shared by all its tasks.
#[derive(Debug, Default)]
pub struct Tally {
    opened: AtomicU64,
    unopened: AtomicU64,
    closed: AtomicU64,
    frames: AtomicU64,
    bytes: AtomicU64,
    answers: Mutex<BTreeMap<i32, u64>>,
    notes: Mutex<BTreeMap<&'static str, u64>>,
}

/// The counts of an attack that has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Done {
    /// Connections that were made.
    pub opened: u64,
    /// Connections that could not be made.
    pub unopened: u64,
    /// Connections that the node closed.
    pub closed: u64,
    /// Frames, or parts of frames, handed to a socket.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Answers by code; answers of the Raft port by the frame's kind, below -100,000.
    pub answers: BTreeMap<i32, u64>,
    /// What else an attack counts.
    pub notes: BTreeMap<&'static str, u64>,
}

/// The least that counts as an attack.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Floor {
    /// Connections made.
    pub opened: u64,
    /// Frames, or parts of frames, handed to a socket.
    pub frames: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Answers, and connections that the node closed: what came back.
    pub heard: u64,
}

impl Tally {
    /// A connection was made.
    pub fn open(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection could not be made.
    pub fn cannot_open(&self) {
        self.unopened.fetch_add(1, Ordering::Relaxed);
    }

    /// The node closed a connection.
    pub fn close(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// A frame, or a part of one, was handed to a socket.
    pub fn frame(&self, bytes: usize) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// An answer came.
    pub fn answer(&self, code: i32) {
        *self.answers.lock().entry(code).or_default() += 1;
    }

    /// Something that only this attack counts.
    pub fn note(&self, what: &'static str) {
        *self.notes.lock().entry(what).or_default() += 1;
    }

    /// The counts now.
    #[must_use]
    pub fn done(&self) -> Done {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Done {
            opened: count(&self.opened),
            unopened: count(&self.unopened),
            closed: count(&self.closed),
            frames: count(&self.frames),
            bytes: count(&self.bytes),
            answers: self.answers.lock().clone(),
            notes: self.notes.lock().clone(),
        }
    }
}

impl Done {
    /// Answers, and connections that the node closed.
    #[must_use]
    pub fn heard(&self) -> u64 {
        self.closed + self.answers.values().sum::<u64>()
    }

    /// What lacks for an attack of this floor (`hostile.I1`).
    #[must_use]
    pub fn lacks(&self, floor: &Floor) -> Option<String> {
        let pairs = [
            ("connections opened", self.opened, floor.opened),
            ("frames written", self.frames, floor.frames),
            ("bytes written", self.bytes, floor.bytes),
            ("answers and closed connections", self.heard(), floor.heard),
        ];
        let lacking = pairs.iter().filter(|(_, done, least)| done < least);
        let words: Vec<String> =
            lacking.map(|(what, done, least)| format!("{done} {what}, at least {least} expected")).collect();
        (!words.is_empty()).then(|| words.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: Floor = Floor { opened: 2, frames: 3, bytes: 30, heard: 1 };

    fn tally(opened: u32, frames: u32) -> Tally {
        let tally = Tally::default();
        (0..opened).for_each(|_| tally.open());
        (0..frames).for_each(|_| tally.frame(10));
        tally
    }

    /// `hostile.I1`
    #[test]
    fn an_attack_that_did_nothing_lacks_everything() {
        let lacking = Tally::default().done().lacks(&FLOOR).expect("nothing was done");
        for what in ["0 connections opened", "0 frames written", "0 bytes", "0 answers"] {
            assert!(lacking.contains(what), "{lacking}");
        }
    }

    #[test]
    fn each_part_of_the_floor_counts_by_itself() {
        let (few_connections, few_frames, unheard) = (tally(1, 3), tally(2, 2), tally(2, 3));
        few_connections.close();
        few_frames.answer(29);
        assert!(few_connections.done().lacks(&FLOOR).is_some_and(|why| why.contains("connections opened")));
        assert!(few_frames.done().lacks(&FLOOR).is_some_and(|why| why.contains("frames written")));
        assert!(unheard.done().lacks(&FLOOR).is_some_and(|why| why.contains("answers")));
    }

    #[test]
    fn an_attack_at_its_floor_counts() {
        let tally = tally(2, 3);
        tally.answer(2);
        assert_eq!(tally.done().lacks(&FLOOR), None);
        assert_eq!(tally.done().answers, BTreeMap::from([(2, 1)]));
    }
}
