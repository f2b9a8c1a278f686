//! The bytes of one simulated file: pages that share their memory with copies of the disk, holes that cost nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a page, the unit of sharing between copies.
pub(super) const PAGE_BYTES: u64 = 4096;

/// The pages that a range of bytes touches.
pub(super) fn pages_of(bytes: std::ops::Range<u64>) -> std::ops::Range<u64> {
    bytes.start / PAGE_BYTES..bytes.end.div_ceil(PAGE_BYTES)
}

type Page = [u8; PAGE_BYTES as usize];

/// A sparse file; what was never written reads as zero.
#[derive(Clone, Default)]
pub(super) struct Pages {
    length: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

impl Pages {
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// Reads at `offset`; returns how many bytes lie before the end of the file.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let count = self.length.saturating_sub(offset).min(buf.len() as u64) as usize;
        for (page, within, range) in spans(offset, count) {
            match self.pages.get(&page) {
                Some(bytes) => buf[range.clone()].copy_from_slice(&bytes[within..within + range.len()]),
                None => buf[range].fill(0),
            }
        }
        count
    }

    /// Writes bytes without changing the length, so that metadata can be lost apart from data.
    pub(super) fn put(&mut self, bytes: &[u8], offset: u64) {
        for (page, within, range) in spans(offset, bytes.len()) {
            let page =
                Arc::make_mut(self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE_BYTES as usize])));
            page[within..within + range.len()].copy_from_slice(&bytes[range]);
        }
    }

    /// Sets the length; bytes beyond it are gone, and read as zero should the file grow again.
    pub(super) fn set_len(&mut self, length: u64) {
        if length < self.length || self.holds_beyond(length) {
            self.pages.split_off(&length.div_ceil(PAGE_BYTES));
            let within = (length % PAGE_BYTES) as usize;
            if within > 0
                && let Some(last) = self.pages.get_mut(&(length / PAGE_BYTES))
            {
                Arc::make_mut(last)[within..].fill(0);
            }
        }
        self.length = length;
    }

    /// Makes the file at least this long.
    pub(super) fn grow(&mut self, length: u64) {
        self.length = self.length.max(length);
    }

    /// All bytes, for comparing; meant for small files.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length as usize];
        self.read(&mut bytes, 0);
        bytes
    }

    fn holds_beyond(&self, length: u64) -> bool {
        self.pages.range(length / PAGE_BYTES..).next().is_some()
    }
}

/// Cuts `count` bytes at `offset` into (page, place in the page, range of the bytes).
fn spans(offset: u64, count: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == count {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % PAGE_BYTES) as usize;
        let end = count.min(done + PAGE_BYTES as usize - within);
        let span = (at / PAGE_BYTES, within, done..end);
        done = end;
        Some(span)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_off_does_not_come_back_when_the_file_grows() {
        let mut pages = Pages::default();
        pages.put(&[7; 9000], 100);
        pages.grow(9100);
        pages.set_len(5000);
        pages.set_len(9100);
        let bytes = pages.to_vec();
        assert!(bytes[..100].iter().all(|&byte| byte == 0));
        assert!(bytes[100..5000].iter().all(|&byte| byte == 7));
        assert!(bytes[5000..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_copy_is_not_changed_by_its_original() {
        let mut pages = Pages::default();
        pages.put(b"old", 0);
        pages.grow(3);
        let copy = pages.clone();
        pages.put(b"new", 0);
        assert_eq!((copy.to_vec(), pages.to_vec()), (b"old".to_vec(), b"new".to_vec()));
    }
}
