//! One simulated file: what programs read, what is durable, and the changes between the two; and which of its pages have
//! blocks of the disk, as on ext4: a page has some once it was written or reserved, a hole has none.

use super::choice::{CrashChoice, SECTOR_BYTES, WriteFate};
use super::extents::Extents;
use super::pages::{PAGE_BYTES, Pages, pages_of};

/// A change of a file's content that is not durable yet.
#[derive(Clone)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
    Grow(u64),
}

/// A file by its content; its names are kept elsewhere.
#[derive(Clone, Default)]
pub(super) struct Content {
    live: Pages,
    durable: Pages,
    unsynced: Vec<Change>,
    /// Changes a failed sync gave up: readable until the machine stops, never made durable by a later sync, and
    /// on the disk or not after a power cut.
    given_up: Vec<Change>,
    /// Pages with blocks, and those that keep them through a power cut.
    blocks: Extents,
    durable_blocks: Extents,
    /// Handles that have the file open.
    pub(super) handles: usize,
}

impl Content {
    pub(super) fn live(&self) -> &Pages {
        &self.live
    }

    /// Writes as many of the bytes as `free` pages are enough for; returns how many that are. What lies where there are
    /// blocks needs none.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64, free: u64) -> usize {
        let end = offset + bytes.len() as u64;
        let mut left = free;
        let full = self.blocks.missing(pages_of(offset..end)).into_iter().find_map(|gap| {
            let pages = gap.end - gap.start;
            if pages > left {
                return Some(gap.start + left);
            }
            left -= pages;
            None
        });
        let until = full.map_or(end, |page| (page * PAGE_BYTES).clamp(offset, end));
        let count = (until - offset) as usize;
        if count > 0 {
            self.change(Change::Write { offset, bytes: bytes[..count].to_vec() });
        }
        count
    }

    pub(super) fn set_len(&mut self, length: u64) {
        self.change(Change::SetLen(length));
    }

    /// Reserves as much of the first `length` bytes as `free` pages are enough for, from the beginning on, and keeps it when
    /// that is not all, as ext4 does; false then.
    pub(super) fn allocate(&mut self, length: u64, free: u64) -> bool {
        let mut left = free;
        for gap in self.blocks.missing(0..length.div_ceil(PAGE_BYTES)) {
            if gap.end - gap.start > left {
                self.change(Change::Grow(((gap.start + left) * PAGE_BYTES).min(length)));
                return false;
            }
            left -= gap.end - gap.start;
        }
        self.change(Change::Grow(length));
        true
    }

    /// Whether the first `length` bytes are there and have blocks.
    pub(super) fn is_allocated(&self, length: u64) -> bool {
        self.live.len() >= length && self.blocks.missing(0..length.div_ceil(PAGE_BYTES)).is_empty()
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
        self.durable_blocks = self.blocks.clone();
        // Later bytes are durable now, so older ones that were given up cannot appear over them any more.
        self.given_up.clear();
    }

    /// What a failed sync does on Linux: the pages count as clean, and the next sync succeeds without them.
    pub(super) fn fail_sync(&mut self) {
        self.given_up.append(&mut self.unsynced);
    }

    /// Flips one bit, durably. False when the file ends before it.
    pub(super) fn flip_bit(&mut self, offset: u64, bit: u32) -> bool {
        let mut byte = [0];
        for pages in [&mut self.live, &mut self.durable] {
            if pages.read(&mut byte, offset) == 1 {
                pages.put(&[byte[0] ^ (1 << (bit % 8))], offset);
            }
        }
        self.live.len() > offset
    }

    /// What the file occupies.
    pub(super) fn used(&self) -> u64 {
        self.blocks.pages() * PAGE_BYTES
    }

    /// The file as a power cut may leave it.
    pub(super) fn crash(&self, choice: &mut dyn CrashChoice) -> Content {
        let (mut left, mut blocks) = (self.durable.clone(), self.durable_blocks.clone());
        for change in self.given_up.iter().chain(&self.unsynced) {
            if change.crash(&mut left, choice) {
                change.allot(&mut blocks);
            }
        }
        // Bytes behind the length that was left are not part of the file.
        left.set_len(left.len());
        blocks.cut(left.len().div_ceil(PAGE_BYTES));
        Content {
            live: left.clone(),
            durable: left,
            durable_blocks: blocks.clone(),
            blocks,
            ..Content::default()
        }
    }

    /// The file as killing the process leaves it: the page cache stays, and with it what is unsynced.
    pub(super) fn kill(&self) -> Content {
        Content { handles: 0, ..self.clone() }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        change.allot(&mut self.blocks);
        self.unsynced.push(change);
    }
}

impl Change {
    fn apply(&self, pages: &mut Pages) {
        match self {
            Change::Write { offset, bytes } => {
                pages.put(bytes, *offset);
                pages.grow(offset + bytes.len() as u64);
            }
            Change::SetLen(length) => pages.set_len(*length),
            Change::Grow(length) => pages.grow(*length),
        }
    }

    /// Gives the file the blocks that the change needs, or takes those that it gives back.
    fn allot(&self, blocks: &mut Extents) {
        match self {
            Change::Write { offset, bytes } => blocks.add(pages_of(*offset..offset + bytes.len() as u64)),
            Change::SetLen(length) => blocks.cut(length.div_ceil(PAGE_BYTES)),
            Change::Grow(length) => blocks.add(0..length.div_ceil(PAGE_BYTES)),
        }
    }

    /// Whether anything of it is left.
    fn crash(&self, pages: &mut Pages, choice: &mut dyn CrashChoice) -> bool {
        match self {
            Change::Write { offset, bytes } => return crash_write(pages, *offset, bytes, choice),
            Change::SetLen(length) if choice.length() => pages.set_len(*length),
            Change::Grow(length) if choice.length() => pages.grow(*length),
            Change::SetLen(_) | Change::Grow(_) => return false,
        }
        true
    }
}

fn crash_write(pages: &mut Pages, offset: u64, bytes: &[u8], choice: &mut dyn CrashChoice) -> bool {
    let end = offset + bytes.len() as u64;
    let first_sector = offset / SECTOR_BYTES;
    let sectors = (end.div_ceil(SECTOR_BYTES) - first_sector).max(1);
    // Place in `bytes` where the sector with this number (counted from the first touched) begins.
    let cut = |sector: u64| {
        let at = ((first_sector + sector.min(sectors)) * SECTOR_BYTES).clamp(offset, end);
        (at - offset) as usize
    };
    let fate = choice.write(sectors);
    match fate {
        WriteFate::Kept => pages.put(bytes, offset),
        WriteFate::Lost => {}
        WriteFate::Head(sectors) => pages.put(&bytes[..cut(sectors)], offset),
        WriteFate::Tail(sectors) => pages.put(&bytes[cut(sectors)..], offset + cut(sectors) as u64),
    }
    if end > pages.len() && choice.length() {
        pages.grow(end);
    }
    fate != WriteFate::Lost
}

#[cfg(test)]
mod tests {
    use super::super::choice::{KeepAll, LoseAll, SeededChoice};
    use super::*;

    fn text(content: &Content) -> String {
        String::from_utf8_lossy(&content.live().to_vec()).into_owned()
    }

    #[test]
    fn unsynced_bytes_are_lost_or_kept_and_synced_ones_stay() {
        let mut content = Content::default();
        content.write(b"abc", 0, u64::MAX);
        content.sync();
        content.write(b"XYdef", 1, u64::MAX);
        assert_eq!(text(&content.crash(&mut LoseAll)), "abc");
        assert_eq!(text(&content.crash(&mut KeepAll)), "aXYdef");
        assert_eq!(text(&content.kill()), "aXYdef");
        assert_eq!(text(&content.kill().crash(&mut LoseAll)), "abc");
    }

    #[test]
    fn a_torn_write_ends_at_a_sector() {
        let mut content = Content::default();
        content.allocate(4096, u64::MAX);
        content.sync();
        content.write(&[1; 2000], 500, u64::MAX);
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let bytes = content.crash(&mut SeededChoice::new(seed)).live().to_vec();
            let first = bytes.iter().position(|&byte| byte == 1).unwrap_or(0);
            let last = bytes.iter().rposition(|&byte| byte == 1).map_or(0, |at| at + 1);
            assert!(first == 500 || first % 512 == 0, "torn at {first}");
            assert!(last == 2500 || last % 512 == 0, "torn at {last}");
            seen.insert((first, last));
        }
        assert_eq!(seen.len(), 2 + 2 * 4, "kept, lost, and each boundary from both sides: {seen:?}");
    }

    #[test]
    fn after_a_failed_sync_the_next_one_succeeds_without_the_bytes() {
        let mut content = Content::default();
        content.write(b"gone", 0, u64::MAX);
        content.fail_sync();
        assert_eq!(text(&content.crash(&mut KeepAll)), "gone");
        content.sync();
        assert_eq!(text(&content), "gone");
        assert_eq!(text(&content.crash(&mut KeepAll)), "");
    }

    #[test]
    fn a_lost_length_hides_kept_bytes() {
        struct DataOnly;
        impl CrashChoice for DataOnly {
            fn write(&mut self, _sectors: u64) -> WriteFate {
                WriteFate::Kept
            }
            fn length(&mut self) -> bool {
                false
            }
            fn name(&mut self) -> bool {
                true
            }
        }
        let mut content = Content::default();
        content.write(b"abc", 0, u64::MAX);
        let mut left = content.crash(&mut DataOnly);
        assert_eq!(text(&left), "");
        left.allocate(3, u64::MAX);
        assert_eq!(text(&left), "\0\0\0");
    }

    #[test]
    fn a_reservation_that_fails_keeps_what_it_got_and_a_write_ends_where_the_blocks_do() {
        let mut content = Content::default();
        assert!(!content.allocate(10 * PAGE_BYTES, 3));
        assert_eq!((content.used(), content.live().len()), (3 * PAGE_BYTES, 3 * PAGE_BYTES));
        // Over blocks that are there none is needed; behind them each page takes one.
        assert_eq!(content.write(&[1; 5000], 100, 0), 5000);
        assert_eq!(content.write(&[1; 8192], 2 * PAGE_BYTES, 0), 4096);
        assert_eq!(content.write(&[1; 20_000], 3 * PAGE_BYTES + 10, 2), 8182);
        assert_eq!(content.write(&[1], 9 * PAGE_BYTES, 0), 0);
        assert_eq!((content.used(), content.live().len()), (5 * PAGE_BYTES, 5 * PAGE_BYTES));
        content.set_len(PAGE_BYTES + 1);
        assert_eq!(content.used(), 2 * PAGE_BYTES);
        content.set_len(10 * PAGE_BYTES);
        assert_eq!(content.used(), 2 * PAGE_BYTES, "a hole has no blocks");
    }

    #[test]
    fn blocks_that_were_not_synced_may_be_gone_after_a_power_cut() {
        let mut content = Content::default();
        content.allocate(2 * PAGE_BYTES, 9);
        content.sync();
        content.allocate(4 * PAGE_BYTES, 9);
        content.write(&[1; 10], 5 * PAGE_BYTES, 9);
        let used = |content: &Content| content.used() / PAGE_BYTES;
        assert_eq!((used(&content.kill()), used(&content.crash(&mut KeepAll))), (5, 5));
        assert_eq!(used(&content.crash(&mut LoseAll)), 2);
    }
}
