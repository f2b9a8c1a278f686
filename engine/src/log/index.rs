//! Where some entries of a segment lie: about one for each 64 KiB, so that finding an entry hops over few headers.
//! It is in memory only, filled while appending, or lazily while an old segment is read.

/// Bytes between two known entries.
pub(super) const STRIDE_BYTES: u64 = 64 << 10;

/// Known entries of one segment as (index, position), ascending.
#[derive(Debug, Default)]
pub(super) struct Index {
    points: Vec<(u64, u64)>,
}

impl Index {
    /// Remembers an entry unless one closely before it is known.
    pub(super) fn note(&mut self, index: u64, position: u64) {
        let at = self.points.partition_point(|point| point.0 <= index);
        let far = at.checked_sub(1).is_none_or(|before| position >= self.points[before].1 + STRIDE_BYTES);
        if far {
            self.points.insert(at, (index, position));
        }
    }

    /// The last known entry that is not after `index`.
    pub(super) fn before(&self, index: u64) -> Option<(u64, u64)> {
        let at = self.points.partition_point(|point| point.0 <= index);
        at.checked_sub(1).map(|at| self.points[at])
    }

    /// The last known entry that does not start after `position`.
    pub(super) fn before_position(&self, position: u64) -> Option<(u64, u64)> {
        let at = self.points.partition_point(|point| point.1 <= position);
        at.checked_sub(1).map(|at| self.points[at])
    }

    /// Forgets the entries above `keep`.
    pub(super) fn forget_after(&mut self, keep: u64) {
        self.points.retain(|point| point.0 <= keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_point_a_stride_in_whatever_order_they_come() {
        let mut index = Index::default();
        for i in (500..1000).chain(0..500) {
            index.note(i, i * 1024);
        }
        assert_eq!(index.before(999), Some((948, 948 * 1024)));
        assert_eq!(index.before(63), Some((0, 0)));
        assert_eq!(index.points.len(), 16);
        assert!(index.points.is_sorted());
        index.forget_after(100);
        assert_eq!(index.before(999), Some((64, 64 * 1024)));
        assert_eq!(Index::default().before(5), None);
    }
}
