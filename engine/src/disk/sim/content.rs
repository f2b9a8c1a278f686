//! One simulated file: what programs read, what is durable, and the changes between the two.

use super::choice::{CrashChoice, SECTOR_BYTES, WriteFate};
use super::pages::Pages;

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
    /// Bytes reserved by an allocation.
    reserved: u64,
    /// Handles that have the file open.
    pub(super) handles: usize,
}

impl Content {
    pub(super) fn live(&self) -> &Pages {
        &self.live
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        self.change(Change::Write { offset, bytes: bytes.to_vec() });
    }

    pub(super) fn set_len(&mut self, length: u64) {
        self.reserved = self.reserved.min(length);
        self.change(Change::SetLen(length));
    }

    pub(super) fn allocate(&mut self, length: u64) {
        self.reserved = self.reserved.max(length);
        self.change(Change::Grow(length));
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
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
        self.reserved + self.live.stored_behind(self.reserved)
    }

    /// What a write would add to that.
    pub(super) fn write_cost(&self, offset: u64, count: usize) -> u64 {
        self.live.cost_of(offset, count, self.reserved)
    }

    /// What an allocation would add to that.
    pub(super) fn allocate_cost(&self, length: u64) -> u64 {
        let after = length.max(self.reserved);
        (after + self.live.stored_behind(after)).saturating_sub(self.used())
    }

    /// The file as a power cut may leave it.
    pub(super) fn crash(&self, choice: &mut dyn CrashChoice) -> Content {
        let mut left = self.durable.clone();
        for change in self.given_up.iter().chain(&self.unsynced) {
            change.crash(&mut left, choice);
        }
        // Bytes behind the length that was left are not part of the file.
        left.set_len(left.len());
        Content {
            reserved: self.reserved.min(left.len()),
            live: left.clone(),
            durable: left,
            ..Content::default()
        }
    }

    /// The file as killing the process leaves it: the page cache stays, and with it what is unsynced.
    pub(super) fn kill(&self) -> Content {
        Content { handles: 0, ..self.clone() }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
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

    fn crash(&self, pages: &mut Pages, choice: &mut dyn CrashChoice) {
        match self {
            Change::Write { offset, bytes } => crash_write(pages, *offset, bytes, choice),
            Change::SetLen(length) if choice.length() => pages.set_len(*length),
            Change::Grow(length) if choice.length() => pages.grow(*length),
            Change::SetLen(_) | Change::Grow(_) => {}
        }
    }
}

fn crash_write(pages: &mut Pages, offset: u64, bytes: &[u8], choice: &mut dyn CrashChoice) {
    let end = offset + bytes.len() as u64;
    let first_sector = offset / SECTOR_BYTES;
    let sectors = (end.div_ceil(SECTOR_BYTES) - first_sector).max(1);
    // Place in `bytes` where the sector with this number (counted from the first touched) begins.
    let cut = |sector: u64| {
        let at = ((first_sector + sector.min(sectors)) * SECTOR_BYTES).clamp(offset, end);
        (at - offset) as usize
    };
    match choice.write(sectors) {
        WriteFate::Kept => pages.put(bytes, offset),
        WriteFate::Lost => {}
        WriteFate::Head(sectors) => pages.put(&bytes[..cut(sectors)], offset),
        WriteFate::Tail(sectors) => pages.put(&bytes[cut(sectors)..], offset + cut(sectors) as u64),
    }
    if end > pages.len() && choice.length() {
        pages.grow(end);
    }
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
        content.write(b"abc", 0);
        content.sync();
        content.write(b"XYdef", 1);
        assert_eq!(text(&content.crash(&mut LoseAll)), "abc");
        assert_eq!(text(&content.crash(&mut KeepAll)), "aXYdef");
        assert_eq!(text(&content.kill()), "aXYdef");
        assert_eq!(text(&content.kill().crash(&mut LoseAll)), "abc");
    }

    #[test]
    fn a_torn_write_ends_at_a_sector() {
        let mut content = Content::default();
        content.allocate(4096);
        content.sync();
        content.write(&[1; 2000], 500);
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
        content.write(b"gone", 0);
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
        content.write(b"abc", 0);
        let mut left = content.crash(&mut DataOnly);
        assert_eq!(text(&left), "");
        left.allocate(3);
        assert_eq!(text(&left), "\0\0\0");
    }
}
