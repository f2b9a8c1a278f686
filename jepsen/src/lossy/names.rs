//! The names inside one directory: those programs see, and those that are on the disk.
//!
//! A change of a name is on the disk once the directory was synced; syncing the file itself does
//! not help. A rename survives whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use super::loss::{Loss, Losses};
use crate::nemesis::Dice;

/// Name to inode.
pub(super) type Entries = BTreeMap<OsString, u64>;

/// A change that is not synced.
enum Change {
    Set(OsString, u64),
    Remove(OsString),
    Rename { from: OsString, to: OsString, inode: u64 },
}

/// One directory.
#[derive(Default)]
pub(super) struct Names {
    entries: Entries,
    synced: Entries,
    changes: Vec<Change>,
}

impl Change {
    fn apply(&self, entries: &mut Entries) {
        match self {
            Self::Set(name, inode) => {
                entries.insert(name.clone(), *inode);
            }
            Self::Remove(name) => {
                entries.remove(name);
            }
            Self::Rename { from, to, inode } => {
                entries.remove(from);
                entries.insert(to.clone(), *inode);
            }
        }
    }
}

impl Names {
    /// What programs see.
    pub(super) fn entries(&self) -> &Entries {
        &self.entries
    }

    /// The inode of a name.
    pub(super) fn get(&self, name: &OsStr) -> Option<u64> {
        self.entries.get(name).copied()
    }

    pub(super) fn set(&mut self, name: &OsStr, inode: u64) {
        self.change(Change::Set(name.to_owned(), inode));
    }

    pub(super) fn remove(&mut self, name: &OsStr) {
        self.change(Change::Remove(name.to_owned()));
    }

    /// Renames inside this directory.
    pub(super) fn rename(&mut self, from: &OsStr, to: &OsStr, inode: u64) {
        self.change(Change::Rename { from: from.to_owned(), to: to.to_owned(), inode });
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.entries);
        self.changes.push(change);
    }

    /// Puts all changes on the disk.
    pub(super) fn sync(&mut self) {
        self.synced.clone_from(&self.entries);
        self.changes.clear();
    }

    /// Every inode a name leads to, now or after a power cut.
    pub(super) fn inodes(&self) -> BTreeSet<u64> {
        let unsynced = self.changes.iter().filter_map(|change| match change {
            Change::Set(_, inode) | Change::Rename { inode, .. } => Some(*inode),
            Change::Remove(_) => None,
        });
        self.entries.values().chain(self.synced.values()).copied().chain(unsynced).collect()
    }

    /// The power went: of the unsynced changes only what `loss` lets survive was made, in order.
    pub(super) fn cut(&mut self, loss: Loss, dice: &mut Dice) -> Losses {
        let mut losses = Losses::default();
        let mut fate = loss.of_sectors(self.changes.len() as u64, dice);
        self.entries.clone_from(&self.synced);
        // One change of a name is a piece of its own, whatever the granule of bytes is.
        for (number, change) in (0..).step_by(8).zip(std::mem::take(&mut self.changes)) {
            if fate.survives(number, dice) {
                change.apply(&mut self.entries);
                losses.names_kept += 1;
            } else {
                losses.names_lost += 1;
            }
        }
        self.sync();
        losses
    }

    /// Every inode has a new number.
    pub(super) fn renumber(&mut self, numbers: &BTreeMap<u64, u64>) {
        for inode in self.entries.values_mut() {
            *inode = numbers.get(inode).copied().unwrap_or(*inode);
        }
        self.sync();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(loss: Loss, seed: u64) -> Vec<(String, u64)> {
        let mut names = Names::default();
        names.set("old".as_ref(), 1);
        names.sync();
        names.set("old.tmp".as_ref(), 2);
        names.rename("old.tmp".as_ref(), "old".as_ref(), 2);
        names.set("other".as_ref(), 3);
        names.cut(loss, &mut Dice::new(seed));
        names.entries().iter().map(|(name, inode)| (name.to_string_lossy().into_owned(), *inode)).collect()
    }

    #[test]
    fn unsynced_names_vanish_and_removed_ones_come_back() {
        assert_eq!(after(Loss::All, 1), [("old".to_owned(), 1)]);
        assert_eq!(after(Loss::None, 1), [("old".to_owned(), 2), ("other".to_owned(), 3)]);
    }

    #[test]
    fn a_replaced_file_is_the_old_or_the_new_one_and_never_gone() {
        for seed in 0..200 {
            let entries = after(Loss::Scattered { granule: 512 }, seed);
            assert!(entries.iter().any(|(name, inode)| name == "old" && *inode < 3), "{entries:?}");
        }
    }
}
