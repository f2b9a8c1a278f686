//! Zeroes written ahead of small groups, so that their syncs find blocks that were written before.
//!
//! The first write to a block that is only reserved changes the file system's metadata, and the sync after it costs twice
//! as much: on ext4 four device writes instead of two, 200 us and more instead of 100. A small group that reaches such
//! blocks therefore takes the next ones with it, as zeroes. It costs a second write of the same blocks; large groups, whose
//! syncs are few for what they carry, do without.
//!
//! Nothing depends on it: what is behind the end of the log is zero before and after.

/// Groups smaller than this, on average, have zeroes written ahead of them.
const GROUP_BYTES_MAX: usize = 128 << 10;
/// Groups that the zeroes suffice for.
const GROUPS: usize = 16;
/// Bytes of zeroes at least, and at most.
const AHEAD_BYTES_MIN: usize = 64 << 10;
const AHEAD_BYTES_MAX: usize = 1 << 20;

static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// See the module.
#[derive(Debug, Default)]
pub(super) struct ZeroFill {
    /// Blocks below it were written before.
    end: u64,
    /// Bytes of a group, a moving average.
    usual: usize,
}

impl ZeroFill {
    /// A group of that many bytes is about to be written.
    pub(super) fn note(&mut self, group_bytes: usize) {
        self.usual = (7 * self.usual + group_bytes) / 8;
    }

    /// The zeroes to write behind what ends at `end`, in a segment that ends at `limit`.
    pub(super) fn zeroes(&mut self, end: u64, limit: u64) -> impl Iterator<Item = &'static [u8]> + use<> {
        let mut left = self.count(end, limit);
        self.end = self.end.max(end + left as u64);
        std::iter::from_fn(move || {
            let some = left.min(ZEROES.len());
            left -= some;
            (some > 0).then(|| &ZEROES[..some])
        })
    }

    /// Blocks from `end` on may be gone.
    pub(super) fn forget_from(&mut self, end: u64) {
        self.end = self.end.min(end);
    }

    fn count(&self, end: u64, limit: u64) -> usize {
        if end <= self.end || self.usual >= GROUP_BYTES_MAX {
            return 0;
        }
        let wanted = (GROUPS * self.usual).clamp(AHEAD_BYTES_MIN, AHEAD_BYTES_MAX) as u64;
        limit.saturating_sub(end).min(wanted) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(zero_fill: &mut ZeroFill, group: usize, end: u64, limit: u64) -> usize {
        zero_fill.note(group);
        zero_fill.zeroes(end, limit).map(<[u8]>::len).sum()
    }

    #[test]
    fn small_groups_write_zeroes_ahead_once_for_many() {
        let mut zero_fill = ZeroFill::default();
        let total: usize = (1..=100).map(|group| written(&mut zero_fill, 1000, group * 1000, 1 << 30)).sum();
        assert_eq!(total, 2 * AHEAD_BYTES_MIN);
    }

    #[test]
    fn large_groups_write_none() {
        let mut zero_fill = ZeroFill::default();
        let mut end = 0;
        let mut total = 0;
        for _ in 0..100 {
            end += 300_000;
            total += written(&mut zero_fill, 300_000, end, 1 << 30);
        }
        // Before the average has risen.
        assert!(total <= 4 * AHEAD_BYTES_MAX, "{total}");
        assert_eq!(written(&mut zero_fill, 300_000, end + 300_000, 1 << 30), 0);
    }

    #[test]
    fn zeroes_end_with_the_segment() {
        let mut zero_fill = ZeroFill::default();
        assert_eq!(written(&mut zero_fill, 100, 900, 1000), 100);
        assert_eq!(written(&mut zero_fill, 100, 1000, 1000), 0);
    }

    #[test]
    fn blocks_that_are_gone_are_written_again() {
        let mut zero_fill = ZeroFill::default();
        assert!(written(&mut zero_fill, 100, 100, 1 << 30) > 0);
        assert_eq!(written(&mut zero_fill, 100, 200, 1 << 30), 0);
        zero_fill.forget_from(150);
        assert!(written(&mut zero_fill, 100, 200, 1 << 30) > 0);
    }
}
