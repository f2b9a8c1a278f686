//! All of a simulated disk behind its lock: names, files, pending changes of names, planned faults, history.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::choice::CrashChoice;
use super::content::Content;
use super::names::{NameChange, Names, Node};
use super::operation::{Fault, Operation};
use super::pages::PAGE_BYTES;

/// Names that a block of a directory holds: about as many as ext4 fits of 20 digits each.
const NAMES_PER_PAGE: usize = 128;

/// See [`super::SimDisk`].
#[derive(Default)]
pub(super) struct State {
    pub(super) names: Names,
    durable_names: Names,
    pending_names: Vec<NameChange>,
    files: BTreeMap<u64, Content>,
    next_file: u64,
    pub(super) history: Vec<Operation>,
    pub(super) reads: usize,
    pub(super) faults: BTreeMap<usize, Fault>,
    /// Faults of operations on a path and what is below it, and how many of those happen before.
    pub(super) faults_on: Vec<(PathBuf, usize, Fault)>,
    pub(super) read_faults: BTreeSet<usize>,
    /// Bytes of files that no read gives back, until they are all written again.
    pub(super) lost: Vec<(u64, Range<u64>)>,
    /// A write may cover a part of what is lost.
    pub(super) in_parts: bool,
    pub(super) faults_struck: usize,
    pub(super) power_cut_at: Option<usize>,
    /// The power goes so many operations after the next write to that file.
    pub(super) power_cut_after: Option<(PathBuf, usize)>,
    pub(super) off: bool,
    /// Syncs do nothing.
    pub(super) lying: bool,
    /// Syncs wait.
    pub(super) hanging: bool,
    pub(super) capacity: Option<u64>,
    pub(super) locks: BTreeSet<PathBuf>,
}

impl State {
    /// Every operation begins here. `Err`: it does not happen; `Ok(Some)`: it happens with a fault of its own kind.
    pub(super) fn begin(&mut self, operation: Operation) -> io::Result<Option<Fault>> {
        let number = self.history.len();
        self.off |= self.power_cut_at.is_some_and(|cut| number >= cut);
        self.powered()?;
        let numbered = self.faults.get(&number).copied().filter(|fault| fault.strikes(&operation));
        let fault = self.fault_on(&operation).or(numbered);
        self.faults_struck += usize::from(fault.is_some());
        if let Operation::Write { path, .. } = &operation
            && let Some((_, more)) = self.power_cut_after.take_if(|(awaited, _)| awaited == path)
        {
            self.power_cut_at = Some(number + 1 + more);
        }
        self.history.push(operation);
        Ok(fault)
    }

    /// The fault that waited for this operation.
    fn fault_on(&mut self, operation: &Operation) -> Option<Fault> {
        let mut struck = None;
        self.faults_on.retain_mut(|(path, before, fault)| {
            if !operation.path().starts_with(path) {
                return true;
            }
            let is_due = *before == 0 && struck.is_none() && fault.strikes(operation);
            if is_due {
                struck = Some(*fault);
            }
            *before = before.saturating_sub(1);
            !is_due
        });
        struck
    }

    /// Like [`State::begin`], for operations that fail as a whole.
    fn begin_whole(&mut self, operation: Operation) -> io::Result<()> {
        match self.begin(operation)? {
            Some(fault) => Err(fault.error()),
            None => Ok(()),
        }
    }

    /// Every read begins here.
    pub(super) fn begin_read(&mut self) -> io::Result<()> {
        self.powered()?;
        self.reads += 1;
        if self.read_faults.contains(&(self.reads - 1)) {
            self.faults_struck += 1;
            return Err(Fault::Eio.error());
        }
        Ok(())
    }

    /// The lost bytes of a file that lie in a range.
    pub(super) fn lost_in(&self, file: u64, from: u64, length: usize) -> Option<Range<u64>> {
        let within = |lost: &Range<u64>| lost.start < from + length as u64 && from < lost.end;
        let found = self.lost.iter().find(|(of, lost)| *of == file && within(lost));
        found.map(|(_, lost)| lost.clone())
    }

    /// Every read of a file's bytes begins here.
    pub(super) fn begin_read_of(&mut self, file: u64, from: u64, length: usize) -> io::Result<()> {
        self.begin_read()?;
        // A disk that takes parts is read in whole pages.
        let unit = if self.in_parts { PAGE_BYTES } else { 1 };
        let first = from - from % unit;
        let end = (from + length as u64).next_multiple_of(unit);
        let is_lost = self.lost_in(file, first, (end - first) as usize).is_some();
        if is_lost { Err(Fault::Eio.error()) } else { Ok(()) }
    }

    /// A write that covers lost bytes brings them back; one that covers a part of them would have to read the rest, unless
    /// the disk takes parts.
    pub(super) fn overwrite(&mut self, file: u64, from: u64, length: usize) -> io::Result<()> {
        let end = from + length as u64;
        while let Some(lost) = self.lost_in(file, from, length) {
            let rest = [lost.start..from.max(lost.start), end.min(lost.end)..lost.end];
            let rest: Vec<_> = rest.into_iter().filter(|rest| !rest.is_empty()).collect();
            if !rest.is_empty() && !self.in_parts {
                return Err(Fault::Eio.error());
            }
            self.lost.retain(|(of, other)| (*of, other) != (file, &lost));
            self.lost.extend(rest.into_iter().map(|rest| (file, rest)));
        }
        Ok(())
    }

    fn powered(&self) -> io::Result<()> {
        if self.off { Err(io::Error::other("the power of the simulated disk is off")) } else { Ok(()) }
    }

    pub(super) fn content(&mut self, file: u64) -> &mut Content {
        self.files.entry(file).or_default()
    }

    pub(super) fn file_at(&self, path: &Path) -> io::Result<u64> {
        match self.names.get(path) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Directory) => Err(describe(io::ErrorKind::IsADirectory, path)),
            None => Err(describe(io::ErrorKind::NotFound, path)),
        }
    }

    pub(super) fn directory_at(&self, path: &Path) -> io::Result<()> {
        match self.names.get(path) {
            Some(Node::Directory) => Ok(()),
            Some(Node::File(_)) => Err(describe(io::ErrorKind::NotADirectory, path)),
            None => Err(describe(io::ErrorKind::NotFound, path)),
        }
    }

    pub(super) fn create_directories(&mut self, path: &Path) -> io::Result<()> {
        self.powered()?;
        if let Some(parent) = path.parent()
            && !self.names.is_directory(parent)
        {
            self.create_directories(parent)?;
        }
        match self.names.get(path) {
            Some(Node::Directory) => Ok(()),
            Some(Node::File(_)) => Err(describe(io::ErrorKind::AlreadyExists, path)),
            None => {
                self.begin_whole(Operation::CreateDirectory { path: path.into() })?;
                self.take_pages(1 + self.pages_for_name(path))?;
                self.rename_live(NameChange::Put { path: path.into(), node: Node::Directory });
                Ok(())
            }
        }
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<u64> {
        match path.parent() {
            Some(parent) => self.directory_at(parent)?,
            None => return Err(describe(io::ErrorKind::IsADirectory, path)),
        }
        self.begin_whole(Operation::Create { path: path.into() })?;
        self.take_pages(self.pages_for_name(path))?;
        let file = self.next_file;
        self.next_file += 1;
        self.files.insert(file, Content::default());
        self.rename_live(NameChange::Put { path: path.into(), node: Node::File(file) });
        Ok(file)
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.file_at(path)?;
        self.begin_whole(Operation::Remove { path: path.into() })?;
        self.rename_live(NameChange::Drop { path: path.into() });
        Ok(())
    }

    /// One operation for each name, innermost first: a power cut can leave a part, as with a real disk.
    pub(super) fn remove_tree(&mut self, path: &Path) -> io::Result<()> {
        self.directory_at(path)?;
        for (path, _) in self.names.tree(path).into_iter().rev() {
            self.begin_whole(Operation::Remove { path: path.clone() })?;
            self.rename_live(NameChange::Drop { path });
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.names.get(from).ok_or_else(|| describe(io::ErrorKind::NotFound, from))?;
        self.directory_at(to.parent().ok_or_else(|| describe(io::ErrorKind::InvalidInput, to))?)?;
        if self.names.get(to).is_some_and(|there| matches!((there, node), (Node::Directory, Node::File(_)))) {
            return Err(describe(io::ErrorKind::IsADirectory, to));
        }
        self.begin_whole(Operation::Rename { from: from.into(), to: to.into() })?;
        if from.parent() != to.parent() && self.names.get(to).is_none() {
            self.take_pages(self.pages_for_name(to))?;
        }
        if from != to {
            self.rename_live(NameChange::Move { from: from.into(), to: to.into() });
        }
        Ok(())
    }

    /// Makes the changes of one directory durable, and those of other directories they build on.
    pub(super) fn sync_directory(&mut self, path: &Path) -> io::Result<()> {
        self.directory_at(path)?;
        self.begin_whole(Operation::SyncDirectory { path: path.into() })?;
        let mut synced: BTreeSet<PathBuf> = BTreeSet::from([path.to_path_buf()]);
        let mut chosen = Vec::new();
        let mut waiting = Vec::new();
        for change in self.pending_names.drain(..).rev() {
            // A directory that was removed and made again is another one: what is synced in it does not go with the old one.
            let is_of_before =
                matches!(&change, NameChange::Drop { path: dropped } if path.starts_with(dropped));
            if is_of_before {
                chosen.push(change);
            } else if change.directories().any(|directory| synced.contains(directory)) {
                synced.extend(change.directories().map(Path::to_path_buf));
                chosen.push(change);
            } else {
                waiting.push(change);
            }
        }
        waiting.reverse();
        self.pending_names = waiting;
        for change in chosen.iter().rev() {
            self.durable_names.apply(change);
        }
        self.forget_unreachable();
        Ok(())
    }

    /// Bytes in use by files that have a name, or are still open, and by directories.
    pub(super) fn used(&self) -> u64 {
        let named: BTreeSet<u64> = self.names.iter().filter_map(|(_, node)| file_of(node)).collect();
        let counted = self.files.iter().filter(|(file, content)| content.handles > 0 || named.contains(file));
        let files: u64 = counted.map(|(_, content)| content.used()).sum();
        files + self.directory_pages() * PAGE_BYTES
    }

    /// Every directory has a block, and more with many names; the first one of the root is the file system's.
    fn directory_pages(&self) -> u64 {
        let mut names: BTreeMap<&Path, usize> = BTreeMap::new();
        for (path, node) in self.names.iter() {
            if node == Node::Directory {
                names.entry(path).or_default();
            }
            *names.entry(path.parent().unwrap_or(path)).or_default() += 1;
        }
        let pages = names.iter().map(|(path, count)| match path.parent() {
            None => count.div_ceil(NAMES_PER_PAGE).saturating_sub(1),
            Some(_) => count.div_ceil(NAMES_PER_PAGE).max(1),
        });
        pages.sum::<usize>() as u64
    }

    /// Blocks that a name more takes in its directory.
    fn pages_for_name(&self, path: &Path) -> u64 {
        let Some(directory) = path.parent().filter(|_| self.capacity.is_some()) else { return 0 };
        let names = self.names.children(directory).len();
        u64::from(names > 0 && names.is_multiple_of(NAMES_PER_PAGE))
    }

    /// Blocks that are not in use.
    pub(super) fn free_pages(&self) -> u64 {
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()) / PAGE_BYTES)
    }

    /// Fails where there are not so many free blocks.
    fn take_pages(&self, pages: u64) -> io::Result<()> {
        if pages == 0 || self.free_pages() >= pages { Ok(()) } else { Err(Fault::Enospc.error()) }
    }

    /// The disk after a power cut: files first, by number, then names, in the order of their changes.
    pub(super) fn crash(&self, choice: &mut dyn CrashChoice) -> State {
        let files = self.files.iter().map(|(file, content)| (*file, content.crash(choice))).collect();
        let mut names = self.durable_names.clone();
        let mut cut: BTreeSet<&Path> = BTreeSet::new();
        for change in &self.pending_names {
            let kept = choice.name() && !change.directories().any(|directory| cut.contains(directory));
            if kept {
                names.apply(change);
            } else {
                cut.extend(change.directories());
            }
        }
        names.drop_orphans();
        self.restarted(files, names.clone(), names, Vec::new())
    }

    /// The disk after the process was killed: the kernel still has everything.
    pub(super) fn kill(&self) -> State {
        let files = self.files.iter().map(|(file, content)| (*file, content.kill())).collect();
        self.restarted(files, self.names.clone(), self.durable_names.clone(), self.pending_names.clone())
    }

    fn restarted(
        &self,
        files: BTreeMap<u64, Content>,
        names: Names,
        durable_names: Names,
        pending_names: Vec<NameChange>,
    ) -> State {
        let mut state = State {
            names,
            durable_names,
            pending_names,
            files,
            next_file: self.next_file,
            capacity: self.capacity,
            lost: self.lost.clone(),
            in_parts: self.in_parts,
            ..State::default()
        };
        state.forget_unreachable();
        state
    }

    fn rename_live(&mut self, change: NameChange) {
        self.names.apply(&change);
        self.pending_names.push(change);
    }

    /// Forgets files that no name can lead to any more and nobody has open.
    fn forget_unreachable(&mut self) {
        let named = self.names.iter().chain(self.durable_names.iter()).filter_map(|(_, node)| file_of(node));
        let pending = self.pending_names.iter().filter_map(|change| match change {
            NameChange::Put { node, .. } => file_of(*node),
            NameChange::Drop { .. } | NameChange::Move { .. } => None,
        });
        // By number: this is asked after every sync of a directory.
        let mut reachable = vec![false; self.next_file as usize];
        named.chain(pending).for_each(|file| reachable[file as usize] = true);
        self.files.retain(|file, content| content.handles > 0 || reachable[*file as usize]);
    }
}

fn file_of(node: Node) -> Option<u64> {
    match node {
        Node::File(file) => Some(file),
        Node::Directory => None,
    }
}

fn describe(kind: io::ErrorKind, path: &Path) -> io::Error {
    io::Error::new(kind, format!("{}: {kind} (simulated disk)", path.display()))
}
