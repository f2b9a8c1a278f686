//! What is damaged in the filler of one segment: found by the scrub ([`super::filler`]), written again by the log's writer.

use std::ops::Range;

/// Damaged places in the filler of one segment.
pub(super) struct BadFiller {
    /// Where the segment begins.
    pub(super) base: u64,
    /// Positions, ascending, apart from each other.
    pub(super) places: Vec<Range<u64>>,
    /// Of the view in which the filler lay there.
    pub(super) epoch: u64,
}
