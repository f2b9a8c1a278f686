//! Sectors of one file that cannot be read until they are written again.

use std::collections::BTreeSet;

/// Bytes of a sector.
const SECTOR: u64 = 512;

/// The numbers of a file's bad sectors.
#[derive(Default)]
pub(super) struct BadSectors(BTreeSet<u64>);

impl BadSectors {
    /// All sectors that these bytes lie in are bad.
    pub(super) fn add(&mut self, from: u64, count: u64) {
        self.0.extend(sectors(from, count));
    }

    /// Whether a read of these bytes fails.
    pub(super) fn hit(&self, from: u64, count: u64) -> bool {
        self.0.range(sectors(from, count)).next().is_some()
    }

    /// These bytes were written: the drive has put other sectors in the place of theirs.
    pub(super) fn written(&mut self, from: u64, count: u64) {
        if !self.0.is_empty() {
            let written = sectors(from, count);
            self.0.retain(|sector| !written.contains(sector));
        }
    }

    /// The file ends there now.
    pub(super) fn cut_off(&mut self, len: u64) {
        let end = len.div_ceil(SECTOR);
        self.0.retain(|sector| *sector < end);
    }

    /// How many bytes cannot be read.
    pub(super) fn bytes(&self) -> u64 {
        self.0.len() as u64 * SECTOR
    }
}

fn sectors(from: u64, count: u64) -> std::ops::Range<u64> {
    let first = from / SECTOR;
    if count == 0 { first..first } else { first..from.saturating_add(count).div_ceil(SECTOR) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_sectors_are_bad_until_they_are_written_or_cut_off() {
        let mut bad = BadSectors::default();
        bad.add(1000, 100);
        assert_eq!(bad.bytes(), 1024);
        assert!(bad.hit(512, 1) && bad.hit(0, 5000) && !bad.hit(0, 512) && !bad.hit(1536, 10));
        assert!(!bad.hit(700, 0));
        bad.written(600, 10);
        assert!(!bad.hit(512, 512) && bad.hit(1024, 1));
        bad.cut_off(1024);
        assert_eq!(bad.bytes(), 0);
    }
}
