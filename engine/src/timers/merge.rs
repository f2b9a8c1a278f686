//! Runs and entries in memory as one sequence, by key ascending. An entry that is in several of them comes once.

use std::sync::Arc;

use folio_protocol::parked::TimerKey;

use super::entry::TimerEntry;
use super::error::TimersError;
use super::run::{Cursor, Run};

/// See the module.
pub(super) struct Merged<'a> {
    heads: Vec<(TimerEntry, Cursor<'a>)>,
    held: std::iter::Peekable<std::vec::IntoIter<TimerEntry>>,
    last: TimerKey,
}

impl<'a> Merged<'a> {
    /// What is above a key. `held`, ascending, is all above it.
    pub(super) fn new(
        runs: &'a [Arc<Run>],
        held: Vec<TimerEntry>,
        above: TimerKey,
    ) -> Result<Merged<'a>, TimersError> {
        let mut heads = Vec::with_capacity(runs.len());
        for run in runs {
            let mut cursor = run.cursor(above)?;
            if let Some(head) = cursor.next()? {
                heads.push((head, cursor));
            }
        }
        Ok(Merged { heads, held: held.into_iter().peekable(), last: above })
    }

    pub(super) fn next(&mut self) -> Result<Option<TimerEntry>, TimersError> {
        loop {
            let Some(entry) = self.take_lowest()? else { return Ok(None) };
            if entry.key > self.last {
                self.last = entry.key;
                return Ok(Some(entry));
            }
        }
    }

    fn take_lowest(&mut self) -> Result<Option<TimerEntry>, TimersError> {
        let lowest = self.heads.iter().enumerate().min_by_key(|(_, (head, _))| head.key);
        let Some((at, key)) = lowest.map(|(at, (head, _))| (at, head.key)) else {
            return Ok(self.held.next());
        };
        if self.held.peek().is_some_and(|held| held.key < key) {
            return Ok(self.held.next());
        }
        let (head, cursor) = &mut self.heads[at];
        let entry = *head;
        match cursor.next()? {
            Some(following) => *head = following,
            None => drop(self.heads.swap_remove(at)),
        }
        Ok(Some(entry))
    }
}
