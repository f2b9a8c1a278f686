//! All entries of several runs, in order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::entry::Entry;
use super::error::KeysError;
use super::run::Reader;

/// See the module. Memory holds one block of each run.
pub(super) struct Merge<'a> {
    runs: Vec<Entries<'a>>,
    /// The next entry of each run, with its number.
    next: BinaryHeap<Reverse<(Entry, usize)>>,
}

struct Entries<'a> {
    reader: Reader<'a>,
    /// The block to read next.
    block: u64,
    left: std::vec::IntoIter<Entry>,
}

impl Entries<'_> {
    fn next(&mut self) -> Result<Option<Entry>, KeysError> {
        loop {
            if let Some(entry) = self.left.next() {
                return Ok(Some(entry));
            }
            if self.block > self.reader.run.header.blocks() {
                return Ok(None);
            }
            self.left = self.reader.block(self.block)?.into_iter();
            self.block += 1;
        }
    }
}

impl<'a> Merge<'a> {
    pub(super) fn new(readers: impl Iterator<Item = Reader<'a>>) -> Result<Merge<'a>, KeysError> {
        let runs = readers.map(|reader| Entries { reader, block: 1, left: Vec::new().into_iter() });
        let mut merge = Merge { runs: runs.collect(), next: BinaryHeap::new() };
        (0..merge.runs.len()).try_for_each(|run| merge.advance(run))?;
        Ok(merge)
    }

    fn advance(&mut self, run: usize) -> Result<(), KeysError> {
        if let Some(entry) = self.runs[run].next()? {
            self.next.push(Reverse((entry, run)));
        }
        Ok(())
    }
}

impl Iterator for Merge<'_> {
    type Item = Result<Entry, KeysError>;

    fn next(&mut self) -> Option<Result<Entry, KeysError>> {
        let Reverse((entry, run)) = self.next.pop()?;
        Some(self.advance(run).map(|()| entry))
    }
}
