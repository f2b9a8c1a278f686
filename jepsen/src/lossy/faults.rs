//! What the disk does wrong on purpose, besides forgetting.

use std::path::Path;
use std::time::Duration;

use crate::nemesis::Dice;

/// Files by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The log's segments.
    Log,
    /// The vote.
    Vote,
    /// All others.
    Other,
}

impl Class {
    /// Of a path below the mount.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        if path.components().any(|part| part.as_os_str() == "commitlog") {
            Self::Log
        } else if path.file_name().is_some_and(|name| name == "vote") {
            Self::Vote
        } else {
            Self::Other
        }
    }
}

/// Operations that fail: all of them on files of one class, or on any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failing {
    /// `None`: files of every class.
    pub class: Option<Class>,
    /// How many fail before they work again.
    pub times: u32,
}

impl Failing {
    /// Whether this one fails.
    fn hits(&mut self, class: Class) -> bool {
        let hit = self.times > 0 && self.class.is_none_or(|wanted| wanted == class);
        self.times -= u32::from(hit);
        hit
    }
}

/// Everything that is wrong with a disk now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Bytes that fit; `None`: without end.
    pub capacity: Option<u64>,
    /// Writes that fail with EIO.
    pub writes: Option<Failing>,
    /// Syncs that fail with EIO, and lose what they were to sync.
    pub syncs: Option<Failing>,
    /// Every sync takes so long, from and to.
    pub slow: Option<(Duration, Duration)>,
}

/// How often each fault was met: a fault nobody met proves nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hits {
    /// Operations refused for want of space.
    pub full: u64,
    /// Writes that failed.
    pub writes: u64,
    /// Syncs that failed.
    pub syncs: u64,
    /// Syncs that were slow.
    pub slow: u64,
    /// Reads that failed.
    pub reads: u64,
}

/// The faults and who met them.
#[derive(Default)]
pub(super) struct Trouble {
    pub(super) faults: Faults,
    pub(super) hits: Hits,
}

impl Trouble {
    /// Whether a write of this class fails.
    pub(super) fn fails_write(&mut self, class: Class) -> bool {
        let hit = self.faults.writes.as_mut().is_some_and(|failing| failing.hits(class));
        self.hits.writes += u64::from(hit);
        hit
    }

    /// Whether a sync of this class fails.
    pub(super) fn fails_sync(&mut self, class: Class) -> bool {
        let hit = self.faults.syncs.as_mut().is_some_and(|failing| failing.hits(class));
        self.hits.syncs += u64::from(hit);
        hit
    }

    /// How much longer the next sync takes.
    pub(super) fn slowness(&mut self, dice: &mut Dice) -> Option<Duration> {
        let (from, to) = self.faults.slow?;
        self.hits.slow += 1;
        Some(dice.millis(from.as_millis() as u64, to.as_millis() as u64))
    }

    /// Whether so many bytes more fit.
    pub(super) fn fits(&mut self, used: u64, more: u64) -> bool {
        let fits = self.faults.capacity.is_none_or(|capacity| used.saturating_add(more) <= capacity);
        self.hits.full += u64::from(!fits);
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_operations_of_that_class_fail() {
        let syncs = Some(Failing { class: Some(Class::Vote), times: 2 });
        let mut trouble = Trouble { faults: Faults { syncs, ..Faults::default() }, ..Trouble::default() };
        let outcomes: Vec<bool> = [Class::Log, Class::Vote, Class::Vote, Class::Vote]
            .map(|class| trouble.fails_sync(class))
            .into_iter()
            .collect();
        assert_eq!(outcomes, [false, true, true, false]);
        assert_eq!(trouble.hits.syncs, 2);
        assert_eq!(Class::of(Path::new("broker-a/commitlog/0")), Class::Log);
        assert_eq!(Class::of(Path::new("broker-a/vote")), Class::Vote);
    }
}
