//! Names of parked polls.

/// Names a parked poll; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(pub(super) u64);

impl Ticket {
    /// The first one that is given.
    pub(super) const FIRST: Ticket = Ticket(0);
    /// None is behind it.
    pub(super) const LAST: Ticket = Ticket(u64::MAX);

    /// The one after this.
    pub(super) fn next(self) -> Ticket {
        Ticket(self.0 + 1)
    }
}
