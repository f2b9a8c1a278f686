//! The log as its callers use it, on the real disk; each file is one family of behaviour.

mod append;
mod contract;
mod crash;
mod damage;
mod fault;
mod filler;
mod front;
mod full;
mod lost;
mod model;
mod remove;
mod rot;
mod steps;
mod votes;

use std::path::Path;
use std::sync::{Arc, mpsc};

use super::mark::{Mark, Start, StartFile};
use super::*;
use crate::disk::{Disk, RealDisk};
use crate::record::RecordKind;
use crate::sample::message;

pub(super) const SEGMENT_BYTES: u64 = 4096;

pub(super) fn config() -> LogConfig {
    LogConfig { segment_bytes: SEGMENT_BYTES, cache_bytes: 1 << 20, sync: true }
}

pub(super) fn open(dir: &Path) -> CommitLog {
    try_open(dir).unwrap()
}

pub(super) fn try_open(dir: &Path) -> Result<CommitLog, OpenError> {
    CommitLog::open(Arc::new(RealDisk), dir, config(), StampBase::default())
}

pub(super) fn id(index: u64) -> EntryId {
    EntryId { term: 1, index }
}

pub(super) fn command(bytes: usize) -> Draft {
    Draft::with_payload(RecordKind::Command, &vec![b'c'; bytes])
}

pub(super) fn messages(routes: &[(&str, u32)]) -> Draft {
    let mut draft = Draft::new(RecordKind::Messages, 1000);
    for (topic, queue) in routes {
        draft.payload_mut().extend_from_slice(&message(topic, *queue, b"hello"));
        draft.messages += 1;
    }
    draft
}

pub(super) fn transition(routes: &[(&str, u32)]) -> Draft {
    let mut draft = Draft::transition(&[b"move".to_vec(), b"".to_vec()], 1000).unwrap();
    for (topic, queue) in routes {
        draft.payload_mut().extend_from_slice(&message(topic, *queue, b"moved"));
        draft.messages += 1;
    }
    draft
}

/// Calls `ask` with a completion and waits for it.
pub(super) fn wait(ask: impl FnOnce(Completion)) -> Result<(), WriteError> {
    let (sender, receiver) = mpsc::channel();
    ask(Box::new(move |outcome| sender.send(outcome).unwrap()));
    receiver.recv().unwrap()
}

pub(super) fn flush(log: &CommitLog) {
    wait(|done| log.submit(done)).unwrap();
}

pub(super) fn indexes(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.header.index).collect()
}
