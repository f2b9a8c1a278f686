//! The kernel's requests, answered from a [`Store`].
//!
//! Caching is the kernel's usual one: written pages go through at once and stay cached, which is
//! what keeps a shared read-only map coherent with `pwritev`. Names are never cached, so that after
//! a power cut every open leads to a new inode with an empty cache.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, KernelConfig,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;
use rustix::io::Errno;

use super::content::PAGE;
use super::error::Result;
use super::store::{Attributes, ROOT, Store};
use crate::nemesis::Dice;

/// How long the kernel may believe attributes: only it changes them while a file has its number.
const ATTRIBUTES_TTL: Duration = Duration::from_secs(60);
/// How long it may believe names.
const NAMES_TTL: Duration = Duration::ZERO;
/// The most bytes of one write.
const WRITE_MAX: u32 = 1 << 20;
/// The disk's size when it has no other limit, for statfs.
const PAGES_MAX: u64 = 1 << 30;

/// Names of a directory as they were when it was opened.
type Listing = Vec<(OsString, u64, bool)>;

/// The file system as the kernel sees it.
pub(super) struct Mounted {
    pub(super) store: Arc<Mutex<Store>>,
    pub(super) dice: Mutex<Dice>,
    listings: Mutex<HashMap<u64, Listing>>,
    last_handle: AtomicU64,
}

impl Mounted {
    pub(super) fn new(store: Arc<Mutex<Store>>, dice: Dice) -> Self {
        let (listings, last_handle) = (Mutex::default(), AtomicU64::new(0));
        Self { store, dice: Mutex::new(dice), listings, last_handle }
    }

    fn listing(&self, directory: u64) -> Result<Listing> {
        let own = [(".".into(), directory, true), ("..".into(), ROOT, true)];
        let names = self.store.lock().list(directory)?;
        let names = names.into_iter().map(|(name, found)| (name, found.inode, found.is_dir));
        Ok(own.into_iter().chain(names).collect())
    }

    /// Does the sync now, or on a thread of its own after a while: others are served meanwhile.
    fn sync(&self, sync: impl FnOnce(&mut Store) -> Result<()> + Send + 'static, reply: ReplyEmpty) {
        let slowness = self.store.lock().trouble.slowness(&mut self.dice.lock());
        let Some(slowness) = slowness else {
            return empty(sync(&mut self.store.lock()), reply);
        };
        let store = Arc::clone(&self.store);
        std::thread::spawn(move || {
            std::thread::sleep(slowness);
            let synced = sync(&mut store.lock());
            empty(synced, reply);
        });
    }
}

fn code(error: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(error.raw_os_error())
}

fn empty(result: Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(code(error)),
    }
}

fn entry(result: Result<Attributes>, reply: ReplyEntry) {
    match result {
        Ok(found) => reply.entry(&NAMES_TTL, &attr(&found), Generation(0)),
        Err(error) => reply.error(code(error)),
    }
}

fn attr(found: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(found.inode),
        size: found.len,
        blocks: found.len.div_ceil(512),
        atime: found.modified,
        mtime: found.modified,
        ctime: found.modified,
        crtime: found.modified,
        kind: if found.is_dir { FileType::Directory } else { FileType::RegularFile },
        perm: found.mode as u16,
        nlink: if found.is_dir { 2 } else { 1 },
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: PAGE as u32,
        flags: 0,
    }
}

impl Filesystem for Mounted {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Less than this is as good, more is not needed.
        let _ = config.set_max_write(WRITE_MAX);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(self.store.lock().lookup(parent.0, name), reply);
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.store.lock().attributes(ino.0) {
            Ok(found) => reply.attr(&ATTRIBUTES_TTL, &attr(&found)),
            Err(error) => reply.error(code(error)),
        }
    }

    fn setattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut store = self.store.lock();
        let set = mode
            .map_or(Ok(()), |mode| store.set_mode(ino.0, mode))
            .and_then(|()| size.map_or(Ok(()), |size| store.set_len(ino.0, size)));
        match set.and_then(|()| store.attributes(ino.0)) {
            Ok(found) => reply.attr(&ATTRIBUTES_TTL, &attr(&found)),
            Err(error) => reply.error(code(error)),
        }
    }

    fn mknod(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        entry(self.store.lock().create(parent.0, name, mode, false), reply);
    }

    fn mkdir(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        entry(self.store.lock().create(parent.0, name, mode, true), reply);
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let mut store = self.store.lock();
        let made = store.create(parent.0, name, mode, false);
        match made.and_then(|made| store.open(made.inode).map(|()| made)) {
            Ok(made) => {
                reply.created(&NAMES_TTL, &attr(&made), Generation(0), FileHandle(0), FopenFlags::empty());
            }
            Err(error) => reply.error(code(error)),
        }
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.store.lock().remove(parent.0, name, false), reply);
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.store.lock().remove(parent.0, name, true), reply);
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(code(Errno::INVAL));
        }
        empty(self.store.lock().rename((parent.0, name), (newparent.0, newname)), reply);
    }

    fn open(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.store.lock().open(ino.0) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(code(error)),
        }
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.store.lock().read(ino.0, offset, u64::from(size)) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(code(error)),
        }
    }

    fn write(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.store.lock().write(ino.0, offset, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(code(error)),
        }
    }

    fn flush(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn release(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.store.lock().release(ino.0);
        reply.ok();
    }

    fn fsync(&self, _request: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.sync(move |store| store.sync(ino.0), reply);
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.sync(move |store| store.sync_dir(ino.0), reply);
    }

    fn opendir(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.listing(ino.0) {
            Ok(listing) => {
                let handle = self.last_handle.fetch_add(1, Ordering::Relaxed) + 1;
                self.listings.lock().insert(handle, listing);
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(error) => reply.error(code(error)),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listings = self.listings.lock();
        let Some(listing) = listings.get(&fh.0) else { return reply.error(code(Errno::BADF)) };
        for (at, (name, inode, is_dir)) in listing.iter().enumerate().skip(offset as usize) {
            let kind = if *is_dir { FileType::Directory } else { FileType::RegularFile };
            if reply.add(INodeNo(*inode), at as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.listings.lock().remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let store = self.store.lock();
        let blocks = store.trouble.faults.capacity.map_or(PAGES_MAX, |bytes| bytes / PAGE);
        let free = blocks.saturating_sub(store.used() / PAGE);
        reply.statfs(blocks, free, free, PAGES_MAX, PAGES_MAX, PAGE as u32, 255, PAGE as u32);
    }

    fn fallocate(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let Some(end) = offset.checked_add(length) else { return reply.error(code(Errno::FBIG)) };
        match mode {
            0 | 1 => empty(self.store.lock().allocate(ino.0, end, mode == 1), reply),
            _ => reply.error(code(Errno::OPNOTSUPP)),
        }
    }

    // Not offered; answered here only because the library would log each of them.

    fn getxattr(&self, _request: &Request, _ino: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        reply.error(code(Errno::NOSYS));
    }

    fn lseek(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: i64,
        _whence: i32,
        reply: ReplyLseek,
    ) {
        reply.error(code(Errno::NOSYS));
    }
}
