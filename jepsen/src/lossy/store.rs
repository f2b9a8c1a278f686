//! The files and directories of one lossy disk, without anything of FUSE.
//!
//! Names and what is not synced are in memory; synced bytes are in one backing file per file, named
//! by a number. After a power cut every surviving file has a new inode number: whatever the kernel
//! cached for the old ones is never looked at again, and whoever still holds one gets ESTALE.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::io::Errno;

use super::bad_sectors::BadSectors;
use super::content::{Content, PAGE};
use super::error::Result;
use super::faults::{Class, Trouble};
use super::loss::{Loss, Losses};
use super::names::Names;
use crate::nemesis::Dice;

/// The root directory's inode.
pub(super) const ROOT: u64 = 1;

enum Kind {
    File(Content),
    Dir(Names),
}

struct Inode {
    kind: Kind,
    /// Below the mount, when it got its last name.
    path: PathBuf,
    mode: u32,
    modified: SystemTime,
    opens: u64,
    bad: BadSectors,
}

/// What programs are told of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes {
    pub(super) inode: u64,
    pub(super) len: u64,
    pub(super) is_dir: bool,
    pub(super) mode: u32,
    pub(super) modified: SystemTime,
}

/// A disk.
pub(super) struct Store {
    dir: PathBuf,
    inodes: HashMap<u64, Inode>,
    last_inode: u64,
    /// Bytes of all files, in whole pages.
    used: u64,
    pub(super) trouble: Trouble,
}

fn whole_pages(len: u64) -> u64 {
    len.div_ceil(PAGE) * PAGE
}

impl Store {
    /// An empty disk with its backing files in `dir`.
    pub(super) fn new(dir: &Path) -> Self {
        let root = Inode {
            kind: Kind::Dir(Names::default()),
            path: PathBuf::new(),
            mode: 0o755,
            modified: SystemTime::now(),
            opens: 0,
            bad: BadSectors::default(),
        };
        let inodes = HashMap::from([(ROOT, root)]);
        Self { dir: dir.to_owned(), inodes, last_inode: ROOT, used: 0, trouble: Trouble::default() }
    }

    /// Bytes in use.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    fn inode(&self, inode: u64) -> Result<&Inode> {
        self.inodes.get(&inode).ok_or(Errno::STALE)
    }

    fn inode_mut(&mut self, inode: u64) -> Result<&mut Inode> {
        self.inodes.get_mut(&inode).ok_or(Errno::STALE)
    }

    fn content(&mut self, inode: u64) -> Result<&mut Content> {
        match &mut self.inode_mut(inode)?.kind {
            Kind::File(content) => Ok(content),
            Kind::Dir(_) => Err(Errno::ISDIR),
        }
    }

    fn names(&self, inode: u64) -> Result<&Names> {
        match &self.inode(inode)?.kind {
            Kind::Dir(names) => Ok(names),
            Kind::File(_) => Err(Errno::NOTDIR),
        }
    }

    fn names_mut(&mut self, inode: u64) -> Result<&mut Names> {
        match &mut self.inode_mut(inode)?.kind {
            Kind::Dir(names) => Ok(names),
            Kind::File(_) => Err(Errno::NOTDIR),
        }
    }

    fn class(&self, inode: u64) -> Result<Class> {
        Ok(Class::of(&self.inode(inode)?.path))
    }

    pub(super) fn attributes(&self, number: u64) -> Result<Attributes> {
        let inode = self.inode(number)?;
        let (len, is_dir) = match &inode.kind {
            Kind::File(content) => (content.len(), false),
            Kind::Dir(_) => (PAGE, true),
        };
        Ok(Attributes { inode: number, len, is_dir, mode: inode.mode, modified: inode.modified })
    }

    pub(super) fn lookup(&self, parent: u64, name: &OsStr) -> Result<Attributes> {
        self.attributes(self.names(parent)?.get(name).ok_or(Errno::NOENT)?)
    }

    /// Names in a directory with their attributes.
    pub(super) fn list(&self, directory: u64) -> Result<Vec<(OsString, Attributes)>> {
        let names = self.names(directory)?.entries().iter();
        names.map(|(name, inode)| Ok((name.clone(), self.attributes(*inode)?))).collect()
    }

    /// Makes a file or a directory.
    pub(super) fn create(
        &mut self,
        parent: u64,
        name: &OsStr,
        mode: u32,
        is_dir: bool,
    ) -> Result<Attributes> {
        if self.names(parent)?.get(name).is_some() {
            return Err(Errno::EXIST);
        }
        if !self.trouble.fits(self.used, PAGE) {
            return Err(Errno::NOSPC);
        }
        let path = self.inode(parent)?.path.join(name);
        let number = self.last_inode + 1;
        let kind = if is_dir {
            Kind::Dir(Names::default())
        } else {
            Kind::File(Content::create(self.dir.join(number.to_string()))?)
        };
        let (mode, bad) = (mode & 0o7777, BadSectors::default());
        let inode = Inode { kind, path, mode, modified: SystemTime::now(), opens: 0, bad };
        self.last_inode = number;
        self.inodes.insert(number, inode);
        self.names_mut(parent)?.set(name, number);
        self.attributes(number)
    }

    /// Takes a name away; the file lives while it is open or a power cut could bring the name back.
    pub(super) fn remove(&mut self, parent: u64, name: &OsStr, is_dir: bool) -> Result<()> {
        let found = self.lookup(parent, name)?;
        match (found.is_dir, is_dir) {
            (true, false) => return Err(Errno::ISDIR),
            (false, true) => return Err(Errno::NOTDIR),
            (true, true) if !self.names(found.inode)?.entries().is_empty() => return Err(Errno::NOTEMPTY),
            _ => {}
        }
        self.names_mut(parent)?.remove(name);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Result<()> {
        let moved = self.lookup(from.0, from.1)?;
        match self.lookup(to.0, to.1) {
            Ok(replaced) if replaced.inode == moved.inode => return Ok(()),
            Ok(replaced) if replaced.is_dir != moved.is_dir => return Err(Errno::ISDIR),
            Ok(replaced) if replaced.is_dir && !self.names(replaced.inode)?.entries().is_empty() => {
                return Err(Errno::NOTEMPTY);
            }
            _ => {}
        }
        if from.0 == to.0 {
            self.names_mut(from.0)?.rename(from.1, to.1, moved.inode);
        } else {
            self.names_mut(to.0)?.set(to.1, moved.inode);
            self.names_mut(from.0)?.remove(from.1);
        }
        let path = self.inode(to.0)?.path.join(to.1);
        self.inode_mut(moved.inode)?.path = path;
        Ok(())
    }

    pub(super) fn open(&mut self, inode: u64) -> Result<()> {
        self.inode_mut(inode)?.opens += 1;
        Ok(())
    }

    pub(super) fn release(&mut self, inode: u64) {
        if let Ok(inode) = self.inode_mut(inode) {
            inode.opens = inode.opens.saturating_sub(1);
        }
        self.sweep();
    }

    pub(super) fn read(&mut self, inode: u64, offset: u64, count: u64) -> Result<Vec<u8>> {
        if self.inode(inode)?.bad.hit(offset, count) {
            self.trouble.hits.reads += 1;
            return Err(Errno::IO);
        }
        self.content(inode)?.read(offset, count)
    }

    pub(super) fn write(&mut self, inode: u64, offset: u64, bytes: &[u8]) -> Result<()> {
        if self.trouble.fails_write(self.class(inode)?) {
            return Err(Errno::IO);
        }
        let end = offset.checked_add(bytes.len() as u64).ok_or(Errno::FBIG)?;
        self.grow(inode, end)?;
        self.content(inode)?.write(offset, bytes)?;
        self.inode_mut(inode)?.bad.written(offset, bytes.len() as u64);
        self.inode_mut(inode)?.modified = SystemTime::now();
        Ok(())
    }

    /// Makes a stretch of the file at this path unreadable; says which inode it is.
    pub(super) fn spoil(&mut self, path: &Path, from: u64, count: u64) -> Result<u64> {
        let mut inode = ROOT;
        for part in path.components() {
            inode = self.lookup(inode, part.as_os_str())?.inode;
        }
        let len = self.content(inode)?.len();
        self.inode_mut(inode)?.bad.add(from, count.min(len.saturating_sub(from)));
        Ok(inode)
    }

    /// Unreadable bytes of all files of that class that have a name.
    pub(super) fn unreadable(&self, class: Class) -> u64 {
        let of_class = |inode: &&Inode| Class::of(&inode.path) == class;
        self.inodes.values().filter(of_class).map(|inode| inode.bad.bytes()).sum()
    }

    pub(super) fn heal_reads(&mut self) {
        self.inodes.values_mut().for_each(|inode| inode.bad = BadSectors::default());
    }

    /// Reserves space; the file becomes longer unless `keep_len`.
    pub(super) fn allocate(&mut self, inode: u64, end: u64, keep_len: bool) -> Result<()> {
        if keep_len {
            // What is reserved beyond the end is not counted: nobody here relies on it.
            return Ok(());
        }
        self.grow(inode, end)?;
        let content = self.content(inode)?;
        if content.len() < end { content.set_len(end) } else { Ok(()) }
    }

    pub(super) fn set_len(&mut self, inode: u64, len: u64) -> Result<()> {
        let old = self.content(inode)?.len();
        self.grow(inode, len)?;
        self.content(inode)?.set_len(len)?;
        self.inode_mut(inode)?.bad.cut_off(len);
        self.used = (self.used + whole_pages(len)).saturating_sub(whole_pages(old.max(len)));
        self.inode_mut(inode)?.modified = SystemTime::now();
        Ok(())
    }

    pub(super) fn set_mode(&mut self, inode: u64, mode: u32) -> Result<()> {
        self.inode_mut(inode)?.mode = mode & 0o7777;
        Ok(())
    }

    /// Takes the space a file needs to be so long.
    fn grow(&mut self, inode: u64, end: u64) -> Result<()> {
        let more = whole_pages(end).saturating_sub(whole_pages(self.content(inode)?.len()));
        if more > 0 && !self.trouble.fits(self.used, more) {
            return Err(Errno::NOSPC);
        }
        self.used += more;
        Ok(())
    }

    /// fsync or fdatasync of a file.
    pub(super) fn sync(&mut self, inode: u64) -> Result<()> {
        if self.trouble.fails_sync(self.class(inode)?) {
            self.content(inode)?.forget();
            return Err(Errno::IO);
        }
        self.content(inode)?.sync()
    }

    /// fsync of a directory.
    pub(super) fn sync_dir(&mut self, inode: u64) -> Result<()> {
        if self.trouble.fails_sync(self.class(inode)?) {
            return Err(Errno::IO);
        }
        self.names_mut(inode)?.sync();
        self.sweep();
        Ok(())
    }

    /// Drops files that no name leads to any more, whatever happens.
    fn sweep(&mut self) {
        let mut named: BTreeSet<u64> = BTreeSet::from([ROOT]);
        for inode in self.inodes.values() {
            if let Kind::Dir(names) = &inode.kind {
                named.extend(names.inodes());
            }
        }
        let mut freed = 0;
        self.inodes.retain(|number, inode| {
            let stays = inode.opens > 0 || named.contains(number);
            if let (false, Kind::File(content)) = (stays, &inode.kind) {
                freed += whole_pages(content.len());
                discard(content);
            }
            stays
        });
        self.used = self.used.saturating_sub(freed);
    }

    /// The power went: only what was synced is there, and what `loss` lets survive of the rest.
    pub(super) fn cut(&mut self, loss: Loss, dice: &mut Dice) -> Result<Losses> {
        let mut losses = Losses::default();
        let mut numbers: Vec<u64> = self.inodes.keys().copied().collect();
        // In the order of their creation: the same seed loses the same bytes.
        numbers.sort_unstable();
        for number in numbers {
            losses += match &mut self.inode_mut(number)?.kind {
                Kind::File(content) => content.cut(loss, dice)?,
                Kind::Dir(names) => names.cut(loss, dice),
            };
        }
        self.renumber();
        Ok(losses)
    }

    /// Gives every file that a name leads to a new number, and drops the others.
    fn renumber(&mut self) {
        let mut numbers = BTreeMap::from([(ROOT, ROOT)]);
        let mut waiting = vec![ROOT];
        while let Some(directory) = waiting.pop() {
            let Some(Inode { kind: Kind::Dir(names), .. }) = self.inodes.get(&directory) else { continue };
            for inode in names.entries().values() {
                self.last_inode += 1;
                numbers.insert(*inode, self.last_inode);
                waiting.push(*inode);
            }
        }
        self.used = 0;
        for (number, mut inode) in std::mem::take(&mut self.inodes) {
            match (numbers.get(&number), &mut inode.kind) {
                (Some(_), Kind::Dir(names)) => names.renumber(&numbers),
                (Some(_), Kind::File(content)) => self.used += whole_pages(content.len()),
                (None, Kind::File(content)) => discard(content),
                (None, Kind::Dir(_)) => {}
            }
            inode.opens = 0;
            if let Some(new) = numbers.get(&number) {
                self.inodes.insert(*new, inode);
            }
        }
    }

    /// Puts everything, as programs saw it last, into an ordinary directory; the disk is empty then.
    pub(super) fn move_to(&mut self, to: &Path) -> std::io::Result<()> {
        let mut waiting = vec![(ROOT, to.to_owned())];
        while let Some((number, path)) = waiting.pop() {
            match self.inodes.get_mut(&number).map(|inode| &mut inode.kind) {
                Some(Kind::Dir(names)) => {
                    std::fs::create_dir_all(&path)?;
                    let below = names.entries().iter().map(|(name, inode)| (*inode, path.join(name)));
                    waiting.extend(below);
                }
                Some(Kind::File(content)) => {
                    content.sync()?;
                    std::fs::rename(content.path(), &path)?;
                }
                None => {}
            }
        }
        *self = Self::new(&self.dir);
        Ok(())
    }
}

fn discard(content: &Content) {
    if let Err(error) = std::fs::remove_file(content.path()) {
        tracing::warn!(file = %content.path().display(), %error, "a backing file stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        (dir, store)
    }

    fn file(store: &mut Store, parent: u64, name: &str, bytes: &[u8]) -> u64 {
        let inode = store.create(parent, name.as_ref(), 0o644, false).unwrap().inode;
        store.write(inode, 0, bytes).unwrap();
        inode
    }

    #[test]
    fn a_file_survives_a_power_cut_only_if_it_and_its_directories_were_synced() {
        let (_dir, mut store) = store();
        let folder = store.create(ROOT, "folder".as_ref(), 0o755, true).unwrap().inode;
        for (name, synced) in [("kept", true), ("empty", false)] {
            let inode = file(&mut store, folder, name, b"bytes");
            if synced {
                store.sync(inode).unwrap();
            }
        }
        store.sync_dir(folder).unwrap();
        store.sync_dir(ROOT).unwrap();
        let nameless = file(&mut store, folder, "nameless", b"bytes");
        store.sync(nameless).unwrap();
        let losses = store.cut(Loss::All, &mut Dice::new(1)).unwrap();
        assert_eq!((losses.names_lost, losses.sectors_lost, losses.lengths_lost), (1, 1, 1));
        assert_eq!(store.attributes(folder).unwrap_err(), Errno::STALE, "an old number must not work");
        let folder = store.lookup(ROOT, "folder".as_ref()).unwrap().inode;
        let kept = store.lookup(folder, "kept".as_ref()).unwrap();
        assert_eq!(store.read(kept.inode, 0, 10).unwrap(), b"bytes");
        assert_eq!(store.lookup(folder, "empty".as_ref()).unwrap().len, 0);
        assert_eq!(store.lookup(folder, "nameless".as_ref()).unwrap_err(), Errno::NOENT);
    }

    #[test]
    fn a_removed_file_comes_back_unless_the_removal_was_synced() {
        let (dir, mut store) = store();
        for name in ["one", "two"] {
            let inode = file(&mut store, ROOT, name, b"bytes");
            store.sync(inode).unwrap();
        }
        store.sync_dir(ROOT).unwrap();
        store.remove(ROOT, "one".as_ref(), false).unwrap();
        store.sync_dir(ROOT).unwrap();
        store.remove(ROOT, "two".as_ref(), false).unwrap();
        store.cut(Loss::All, &mut Dice::new(1)).unwrap();
        assert_eq!(store.lookup(ROOT, "one".as_ref()).unwrap_err(), Errno::NOENT);
        let two = store.lookup(ROOT, "two".as_ref()).unwrap().inode;
        assert_eq!(store.read(two, 0, 10).unwrap(), b"bytes");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "a removed file's bytes stay behind");
    }

    #[test]
    fn a_full_disk_refuses_what_grows_and_takes_what_does_not() {
        let (_dir, mut store) = store();
        let inode = file(&mut store, ROOT, "one", &[1; 8192]);
        store.trouble.faults.capacity = Some(store.used());
        assert_eq!(store.write(inode, 8192, b"x").unwrap_err(), Errno::NOSPC);
        assert_eq!(store.allocate(inode, 8193, false).unwrap_err(), Errno::NOSPC);
        assert_eq!(store.create(ROOT, "two".as_ref(), 0o644, false).unwrap_err(), Errno::NOSPC);
        store.write(inode, 4096, b"x").unwrap();
        assert_eq!(store.trouble.hits.full, 3);
        store.set_len(inode, 4096).unwrap();
        store.write(inode, 4096, b"x").unwrap();
        store.trouble.faults.capacity = None;
        store.write(inode, 1 << 20, b"x").unwrap();
    }

    #[test]
    fn a_bad_sector_cannot_be_read_until_it_is_written() {
        let (_dir, mut store) = store();
        let folder = store.create(ROOT, "commitlog".as_ref(), 0o755, true).unwrap().inode;
        let inode = file(&mut store, folder, "0", &[1; 20_000]);
        assert_eq!(store.spoil(Path::new("commitlog/0"), 5000, 1000).unwrap(), inode);
        assert_eq!(store.unreadable(Class::Log), 1536, "whole sectors");
        assert_eq!(store.read(inode, 4096, 4096).unwrap_err(), Errno::IO);
        store.read(inode, 0, 4096).unwrap();
        assert_eq!(store.trouble.hits.reads, 1);
        store.write(inode, 5000, &[1; 1000]).unwrap();
        assert_eq!(store.unreadable(Class::Log), 0);
        assert_eq!(store.read(inode, 0, 20_000).unwrap(), [1; 20_000]);
        assert_eq!(store.spoil(Path::new("commitlog/1"), 0, 1).unwrap_err(), Errno::NOENT);
    }

    #[test]
    fn files_can_be_looked_at_afterwards() {
        let (dir, mut store) = store();
        let folder = store.create(ROOT, "folder".as_ref(), 0o755, true).unwrap().inode;
        file(&mut store, folder, "file", b"bytes");
        let to = dir.path().join("kept");
        store.move_to(&to).unwrap();
        assert_eq!(std::fs::read(to.join("folder/file")).unwrap(), b"bytes");
    }
}
