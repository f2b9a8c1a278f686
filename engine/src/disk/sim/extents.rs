//! Which pages of a simulated file have blocks of the disk.

use std::collections::BTreeMap;
use std::ops::Range;

/// Ranges of pages, which neither overlap nor touch.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub(super) struct Extents {
    /// First page to the page behind the last one.
    ranges: BTreeMap<u64, u64>,
    pages: u64,
}

impl Extents {
    /// How many pages have blocks.
    pub(super) fn pages(&self) -> u64 {
        self.pages
    }

    /// The parts of a range that have no blocks, ascending.
    pub(super) fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        let first = self.ranges.range(..=at).next_back().map_or(at, |(start, _)| *start);
        for (&start, &end) in self.ranges.range(first..range.end.max(first)) {
            if end <= at {
                continue;
            }
            if start > at {
                gaps.push(at..start);
            }
            at = end;
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// Gives all pages of a range blocks.
    pub(super) fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.pages += self.missing(range.clone()).iter().map(|gap| gap.end - gap.start).sum::<u64>();
        let (mut start, mut end) = (range.start, range.end);
        if let Some((&before, &reach)) = self.ranges.range(..=start).next_back()
            && reach >= start
        {
            start = before;
            end = end.max(reach);
        }
        let joined: Vec<u64> = self.ranges.range(start..=end).map(|(at, _)| *at).collect();
        for at in joined {
            end = end.max(self.ranges.remove(&at).unwrap_or(end));
        }
        self.ranges.insert(start, end);
    }

    /// Takes the blocks of all pages from `page` on.
    pub(super) fn cut(&mut self, page: u64) {
        let behind = self.ranges.split_off(&page);
        self.pages -= behind.iter().map(|(start, end)| end - start).sum::<u64>();
        if let Some((_, end)) = self.ranges.iter_mut().next_back().filter(|(_, end)| **end > page) {
            self.pages -= *end - page;
            *end = page;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::choice::SeededChoice;
    use super::*;

    #[test]
    fn ranges_are_what_a_set_of_pages_is() {
        for seed in 0..200 {
            let mut random = SeededChoice::new(seed);
            let (mut extents, mut set) = (Extents::default(), BTreeSet::new());
            for _ in 0..40 {
                let start = random.below(40);
                let range = start..start + random.below(10);
                if random.below(5) == 0 {
                    extents.cut(start);
                    set.retain(|page| *page < start);
                } else {
                    extents.add(range.clone());
                    set.extend(range);
                }
                assert_eq!(extents.pages(), set.len() as u64);
                let missing: Vec<u64> = extents.missing(0..60).into_iter().flatten().collect();
                assert_eq!(missing, (0..60).filter(|page| !set.contains(page)).collect::<Vec<_>>());
                let ends: Vec<_> = extents.ranges.iter().collect();
                assert!(ends.windows(2).all(|two| two[0].1 < two[1].0), "they touch: {extents:?}");
            }
        }
    }
}
