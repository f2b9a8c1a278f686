//! The bytes of one file: what is on the disk, and what is only in the page cache above it.
//!
//! | part | where | after a power cut |
//! |---|---|---|
//! | synced | a backing file, exactly `synced_len` long | there |
//! | dirty sectors | pages in memory | each is there or not |
//! | forgotten sectors | pages in memory, their sync failed | not there |
//! | the length | in memory | the new one or the synced one |

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::error::{Result, io};
use super::loss::{Loss, Losses};
use crate::nemesis::Dice;

/// Bytes of a page, the unit of the page cache.
pub(super) const PAGE: u64 = 4096;
/// Bytes of a sector, the unit a disk writes whole.
const SECTOR: u64 = 512;
const SECTORS: u64 = PAGE / SECTOR;
/// The longest file: what a segment may have, and some.
const LEN_MAX: u64 = 8 << 30;

/// A page that differs from the disk. Bit `n` of a mask stands for sector `n`.
struct Page {
    bytes: Box<[u8; PAGE as usize]>,
    /// Written and not synced.
    dirty: u8,
    /// Written, and given up by a sync that failed: only memory has it.
    forgotten: u8,
}

/// One file's bytes.
pub(super) struct Content {
    path: PathBuf,
    file: File,
    pages: BTreeMap<u64, Page>,
    len: u64,
    synced_len: u64,
}

impl Content {
    /// An empty file whose synced bytes will be at `path`.
    pub(super) fn create(path: PathBuf) -> Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(&path).map_err(io)?;
        Ok(Self { path, file, pages: BTreeMap::new(), len: 0, synced_len: 0 })
    }

    /// Length as programs see it.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Where the synced bytes are.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes at `offset`, as programs see them: fewer than asked for at the end.
    pub(super) fn read(&self, offset: u64, count: u64) -> Result<Vec<u8>> {
        let end = offset.saturating_add(count).min(self.len);
        if offset >= end {
            return Ok(Vec::new());
        }
        let mut bytes = vec![0; (end - offset) as usize];
        self.read_synced(&mut bytes, offset)?;
        for (index, page) in self.pages.range(offset / PAGE..=(end - 1) / PAGE) {
            let (from, to) = (offset.max(index * PAGE), end.min((index + 1) * PAGE));
            let part = &page.bytes[(from - index * PAGE) as usize..(to - index * PAGE) as usize];
            bytes[(from - offset) as usize..(to - offset) as usize].copy_from_slice(part);
        }
        Ok(bytes)
    }

    /// Fills `bytes` from the disk; what it does not have is zero.
    fn read_synced(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        let there = self.synced_len.saturating_sub(offset).min(bytes.len() as u64) as usize;
        if there > 0 {
            self.file.read_exact_at(&mut bytes[..there], offset).map_err(io)?;
        }
        Ok(())
    }

    /// Writes to the page cache.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= LEN_MAX).ok_or(Errno::FBIG)?;
        let mut at = offset;
        while at < end {
            let index = at / PAGE;
            let to = end.min((index + 1) * PAGE);
            let part = &bytes[(at - offset) as usize..(to - offset) as usize];
            self.write_page(index, at - index * PAGE, part)?;
            at = to;
        }
        self.len = self.len.max(end);
        Ok(())
    }

    fn write_page(&mut self, index: u64, within: u64, part: &[u8]) -> Result<()> {
        let page = self.page(index)?;
        let end = within + part.len() as u64;
        page.bytes[within as usize..end as usize].copy_from_slice(part);
        for sector in within / SECTOR..end.div_ceil(SECTOR) {
            page.dirty |= 1 << sector;
            page.forgotten &= !(1 << sector);
        }
        Ok(())
    }

    fn page(&mut self, index: u64) -> Result<&mut Page> {
        if !self.pages.contains_key(&index) {
            let mut bytes = Box::new([0; PAGE as usize]);
            self.read_synced(&mut bytes[..], index * PAGE)?;
            self.pages.insert(index, Page { bytes, dirty: 0, forgotten: 0 });
        }
        self.pages.get_mut(&index).ok_or(Errno::IO)
    }

    /// Sets the length; what is cut off reads as zero when the file grows again.
    pub(super) fn set_len(&mut self, len: u64) -> Result<()> {
        if len > LEN_MAX {
            return Err(Errno::FBIG);
        }
        let old = std::mem::replace(&mut self.len, len);
        if len < old {
            // Pages above both lengths are gone; below the synced length the disk must be told.
            let kept = self.synced_len.max(len).div_ceil(PAGE);
            self.pages.retain(|index, _| *index < kept);
            let zeroes = vec![0; PAGE as usize];
            let mut at = len;
            let end = old.min(kept * PAGE);
            while at < end {
                let to = end.min((at / PAGE + 1) * PAGE);
                self.write_page(at / PAGE, at % PAGE, &zeroes[..(to - at) as usize])?;
                at = to;
            }
        }
        Ok(())
    }

    /// Puts all dirty sectors and the length on the disk.
    pub(super) fn sync(&mut self) -> Result<()> {
        for (index, page) in &mut self.pages {
            write_sectors(&self.file, *index, &page.bytes, page.dirty)?;
            page.dirty = 0;
        }
        self.pages.retain(|_, page| page.forgotten != 0);
        self.file.set_len(self.len).map_err(io)?;
        self.synced_len = self.len;
        Ok(())
    }

    /// What a failed sync does: the page cache counts its pages as clean, and the disk never gets
    /// them; a later sync succeeds. The length stays unsynced too.
    pub(super) fn forget(&mut self) {
        for page in self.pages.values_mut() {
            page.forgotten |= std::mem::take(&mut page.dirty);
        }
    }

    /// The power went: of what was not synced only what `loss` lets survive is there.
    pub(super) fn cut(&mut self, loss: Loss, dice: &mut Dice) -> Result<Losses> {
        let mut losses = Losses::default();
        let total: u64 = self.pages.values().map(|page| u64::from(page.dirty.count_ones())).sum();
        let mut fate = loss.of_sectors(total, dice);
        for (index, page) in std::mem::take(&mut self.pages) {
            let mut kept = 0;
            for sector in (0..SECTORS).filter(|sector| page.dirty & (1 << sector) != 0) {
                kept |= u8::from(fate.survives(index * SECTORS + sector, dice)) << sector;
            }
            write_sectors(&self.file, index, &page.bytes, kept)?;
            losses.sectors_kept += u64::from(kept.count_ones());
            losses.sectors_lost += u64::from((page.dirty & !kept | page.forgotten).count_ones());
        }
        if self.len != self.synced_len && fate.survives(u64::MAX, dice) {
            self.synced_len = self.len;
        } else if self.len != self.synced_len {
            losses.lengths_lost += 1;
        }
        self.len = self.synced_len;
        self.file.set_len(self.len).map_err(io)?;
        Ok(losses)
    }
}

/// Writes the sectors in the mask, which may grow the backing file.
fn write_sectors(file: &File, index: u64, bytes: &[u8; PAGE as usize], mask: u8) -> Result<()> {
    for sector in (0..SECTORS).filter(|sector| mask & (1 << sector) != 0) {
        let within = (sector * SECTOR) as usize;
        let part = &bytes[within..within + SECTOR as usize];
        file.write_all_at(part, index * PAGE + sector * SECTOR).map_err(io)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        _dir: tempfile::TempDir,
        content: Content,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let content = Content::create(dir.path().join("0")).unwrap();
        Fixture { _dir: dir, content }
    }

    #[test]
    fn what_was_synced_survives_and_what_was_not_is_gone() {
        let Fixture { mut content, _dir } = fixture();
        content.write(0, &[1; 5000]).unwrap();
        content.sync().unwrap();
        content.write(100, &[2; 100]).unwrap();
        content.write(9000, b"new").unwrap();
        assert_eq!(content.read(9000, 10).unwrap(), b"new");
        assert_eq!(content.read(5000, 2).unwrap(), [0, 0]);
        let losses = content.cut(Loss::All, &mut Dice::new(1)).unwrap();
        assert_eq!((losses.sectors_lost, losses.sectors_kept, losses.lengths_lost), (2, 0, 1));
        assert_eq!(content.read(0, 9000).unwrap(), [1; 5000]);
    }

    #[test]
    fn a_torn_cut_keeps_some_sectors_whole_and_loses_others_whole() {
        let Fixture { mut content, _dir } = fixture();
        content.write(0, &[1; 64 << 10]).unwrap();
        content.sync().unwrap();
        content.write(0, &[2; 64 << 10]).unwrap();
        let losses = content.cut(Loss::Scattered { granule: 512 }, &mut Dice::new(3)).unwrap();
        assert!(losses.sectors_lost > 0 && losses.sectors_kept > 0, "{losses:?}");
        let bytes = content.read(0, 64 << 10).unwrap();
        assert!(bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        assert_eq!(bytes.iter().filter(|byte| **byte == 2).count() as u64, losses.sectors_kept * 512);
    }

    #[test]
    fn a_failed_sync_loses_its_bytes_though_the_next_one_succeeds() {
        let Fixture { mut content, _dir } = fixture();
        content.set_len(8192).unwrap();
        content.sync().unwrap();
        content.write(0, b"lost").unwrap();
        content.forget();
        content.write(4096, b"kept").unwrap();
        content.sync().unwrap();
        assert_eq!(content.read(0, 4).unwrap(), b"lost", "memory still has it");
        content.cut(Loss::None, &mut Dice::new(1)).unwrap();
        assert_eq!(content.read(0, 4).unwrap(), [0; 4]);
        assert_eq!(content.read(4096, 4).unwrap(), b"kept");
    }

    #[test]
    fn what_was_cut_off_reads_as_zero_when_the_file_grows_again() {
        let Fixture { mut content, _dir } = fixture();
        content.write(0, &[7; 10_000]).unwrap();
        content.sync().unwrap();
        content.set_len(100).unwrap();
        content.set_len(10_000).unwrap();
        let expected = [vec![7; 100], vec![0; 9900]].concat();
        assert_eq!(content.read(0, 10_000).unwrap(), expected);
        content.sync().unwrap();
        assert_eq!(content.read(0, 10_000).unwrap(), expected);
        content.set_len(5).unwrap();
        content.cut(Loss::All, &mut Dice::new(1)).unwrap();
        assert_eq!(content.len(), 10_000, "a length that was not synced came back");
        assert_eq!(content.read(0, 10_000).unwrap(), expected);
    }

    proptest::proptest! {
        /// Whatever is written, cut off and synced: programs see what a plain file shows, and with
        /// nothing unsynced a power cut changes nothing.
        #[test]
        fn it_is_a_file(steps in proptest::collection::vec((0_u8..4, 0_u64..20_000, 0_u64..9000), 1..40)) {
            let Fixture { mut content, _dir } = fixture();
            let mut model: Vec<u8> = Vec::new();
            for (at, (kind, offset, len)) in steps.into_iter().enumerate() {
                match kind {
                    0 => content.sync().unwrap(),
                    1 => {
                        content.set_len(offset).unwrap();
                        model.resize(offset as usize, 0);
                    }
                    _ => {
                        let bytes = vec![at as u8 + 1; len as usize];
                        content.write(offset, &bytes).unwrap();
                        let end = (offset + len) as usize;
                        model.resize(model.len().max(end), 0);
                        model[offset as usize..end].copy_from_slice(&bytes);
                    }
                }
                proptest::prop_assert_eq!(content.read(0, 1 << 20).unwrap(), &model[..]);
            }
            content.sync().unwrap();
            content.cut(Loss::All, &mut Dice::new(1)).unwrap();
            proptest::prop_assert_eq!(content.read(0, 1 << 20).unwrap(), &model[..]);
        }
    }
}
