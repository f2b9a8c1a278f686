//! The last records of the log, in memory: what replication, apply and most pulls read.
//!
//! Invariants
//! - `cache.I1` The records are consecutive and end with the log's last one.
//! - `cache.I2` A record leaves only after it was written to its file: it is the only copy before.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::record::Record;

/// Consecutive records, each with the number of its append (an index can be appended again after a truncation).
#[derive(Default)]
pub(super) struct Cache {
    records: VecDeque<(u64, Record)>,
    bytes: usize,
}

impl Cache {
    pub(super) fn push(&mut self, sequence: u64, record: Record) {
        if let Some((_, last)) = self.records.back() {
            assert_eq!(last.header.index + 1, record.header.index, "cache.I1: records are consecutive");
        }
        self.bytes += record.frame().len();
        self.records.push_back((sequence, record));
    }

    /// Drops the oldest records while more than `bytes_max` are held and they are among the first `written` appends.
    pub(super) fn evict(&mut self, written: u64, bytes_max: usize) {
        while self.bytes > bytes_max
            && let Some((_, record)) = self.records.pop_front_if(|(sequence, _)| *sequence <= written)
        {
            self.bytes -= record.frame().len();
        }
    }

    pub(super) fn first_index(&self) -> Option<u64> {
        self.records.front().map(|(_, record)| record.header.index)
    }

    /// Where the first cached record starts; everything before is in files.
    pub(super) fn first_position(&self) -> u64 {
        self.records.front().map_or(u64::MAX, |(_, record)| record.position())
    }

    pub(super) fn get(&self, index: u64) -> Option<&Record> {
        let at = index.checked_sub(self.first_index()?)?;
        self.records.get(usize::try_from(at).ok()?).map(|(_, record)| record)
    }

    /// Adds the records from `from` to before `end` to `out`, until `out` holds `bytes_max` or more.
    pub(super) fn read(
        &self,
        from: u64,
        end: u64,
        bytes_max: usize,
        out: &mut Vec<Record>,
        bytes: &mut usize,
    ) {
        for index in from..end {
            let Some(record) = self.get(index).filter(|_| out.is_empty() || *bytes < bytes_max) else {
                return;
            };
            *bytes += record.frame().len();
            out.push(record.clone());
        }
    }

    /// Bytes of one record, by their position in the log.
    pub(super) fn slice(&self, position: u64, length: usize) -> Option<Bytes> {
        let at = self.records.partition_point(|(_, record)| record.end() <= position);
        let (_, record) = self.records.get(at)?;
        let from = usize::try_from(position.checked_sub(record.position())?).ok()?;
        let end = from.checked_add(length).filter(|&end| end <= record.frame().len())?;
        Some(record.frame().slice(from..end))
    }

    /// The entry whose record holds a position of the log.
    pub(super) fn index_at(&self, position: u64) -> Option<u64> {
        let at = self.records.partition_point(|(_, record)| record.end() <= position);
        let (_, record) = self.records.get(at)?;
        (record.position() <= position).then_some(record.header.index)
    }

    /// Drops the records above `keep` (`None`: all).
    pub(super) fn truncate_after(&mut self, keep: Option<u64>) {
        while let Some((_, record)) = self.records.pop_back_if(|(_, record)| Some(record.header.index) > keep)
        {
            self.bytes -= record.frame().len();
        }
    }

    /// Drops the records up to `index`.
    pub(super) fn purge(&mut self, index: u64) {
        while let Some((_, record)) = self.records.pop_front_if(|(_, record)| record.header.index <= index) {
            self.bytes -= record.frame().len();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Cache::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Draft, EntryId, RecordKind};

    fn filled() -> Cache {
        let mut cache = Cache::default();
        for index in 5..10 {
            let draft = Draft::with_payload(RecordKind::Command, &[index as u8; 36]);
            cache.push(index - 4, draft.seal(EntryId { term: 1, index }, index * 100, 0).unwrap());
        }
        cache
    }

    #[test]
    fn only_written_records_are_evicted_and_only_when_there_are_too_many() {
        let mut cache = filled();
        cache.evict(2, 0);
        assert_eq!(cache.first_index(), Some(7), "cache.I2");
        cache.evict(5, 250);
        assert_eq!(cache.first_index(), Some(8));
    }

    #[test]
    fn reads_by_index_and_by_position() {
        let cache = filled();
        assert_eq!(
            [499, 500, 599, 600, 1000].map(|at| cache.index_at(at)),
            [None, Some(5), Some(5), Some(6), None]
        );
        let (mut out, mut bytes) = (Vec::new(), 0);
        cache.read(6, 20, 150, &mut out, &mut bytes);
        assert_eq!(out.iter().map(|record| record.header.index).collect::<Vec<_>>(), [6, 7]);
        assert!(cache.get(4).is_none() && cache.get(10).is_none());
        assert_eq!(cache.slice(664, 36).unwrap()[..], [6; 36]);
        assert!(
            cache.slice(664, 37).is_none() && cache.slice(499, 2).is_none() && cache.slice(1000, 1).is_none()
        );
    }

    #[test]
    fn both_ends_can_be_cut() {
        let mut cache = filled();
        cache.truncate_after(Some(8));
        cache.purge(5);
        assert_eq!((cache.first_index(), cache.bytes), (Some(6), 300));
        cache.truncate_after(None);
        assert_eq!((cache.first_index(), cache.bytes), (None, 0));
    }
}
