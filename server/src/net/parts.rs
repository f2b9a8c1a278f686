//! What one connection has of a share of the node, and how much is its part.
//!
//! Shares are not first come, first kept: a connection takes no more than an eighth of what the others leave, and all
//! connections of one address no more than a half of it. So much is always left that the next one is served.
//!
//! Taken is in steps, so that most requests and answers change no counter of the node.
//!
//! - `client_parts.I1`: what a connection takes of requests, beyond what each has without a share, is its part or less; a
//!   connection that has more answers unread than its part has no more requests read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::addresses::AddressUse;
use super::budget::Budget;
use super::share::Share;

/// One connection takes at most one of so many parts of what is left.
const CONNECTION_PART: usize = 8;
/// All connections of one address.
const ADDRESS_PART: usize = 2;
/// What a connection has of one share; dropped, it is given back.
#[derive(Debug)]
pub(super) struct Part {
    budget: Arc<Budget>,
    address: Arc<AddressUse>,
    share: Share,
    step: usize,
    taken: AtomicUsize,
}

/// Whether a share covers what a connection needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cover {
    /// It does.
    Whole,
    /// It does, and it is more than the connection's part.
    BeyondPart,
    /// So much is not left.
    Refused,
}

impl Part {
    pub(super) fn new(budget: &Arc<Budget>, address: &Arc<AddressUse>, share: Share, step: usize) -> Self {
        Self { budget: budget.clone(), address: address.clone(), share, step, taken: AtomicUsize::new(0) }
    }

    /// Takes so much at least, if it is left and no more than its part.
    pub(super) fn cover_fairly(&self, wanted: usize) -> bool {
        let more = self.missing(wanted);
        more == 0 || (self.is_fair(more) && self.take(more))
    }

    /// Takes so much at least, if it is left.
    pub(super) fn cover(&self, wanted: usize) -> Cover {
        let more = self.missing(wanted);
        if more == 0 {
            return Cover::Whole;
        }
        let is_fair = self.is_fair(more);
        match self.take(more) {
            false => Cover::Refused,
            true if is_fair => Cover::Whole,
            true => Cover::BeyondPart,
        }
    }

    /// In whole steps.
    fn missing(&self, wanted: usize) -> usize {
        wanted.saturating_sub(self.taken.load(Ordering::SeqCst)).next_multiple_of(self.step)
    }

    /// Others may take some in the same moment: then it is a little more than the part, and never more than the share.
    fn is_fair(&self, more: usize) -> bool {
        let left = self.budget.limit(self.share).saturating_sub(self.budget.used(self.share));
        let mine = self.taken.load(Ordering::SeqCst);
        let of_address = self.address.used[self.share as usize].load(Ordering::Relaxed);
        mine + more <= (left + mine) / CONNECTION_PART
            && of_address + more <= (left + of_address) / ADDRESS_PART
    }

    fn take(&self, more: usize) -> bool {
        let is_left = self.budget.grab(self.share, more);
        if is_left {
            self.address.used[self.share as usize].fetch_add(more, Ordering::Relaxed);
            self.taken.fetch_add(more, Ordering::SeqCst);
        }
        is_left
    }

    /// Gives back what a burst has left.
    pub(super) fn shrink(&self, wanted: usize) {
        let taken = self.taken.load(Ordering::SeqCst);
        let keep = wanted.next_multiple_of(self.step) + self.step;
        if taken > 2 * keep
            && self.taken.compare_exchange(taken, keep, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        {
            self.give(taken - keep);
        }
    }

    /// Gives back all of it.
    pub(super) fn give_back(&self) {
        if self.taken.load(Ordering::SeqCst) > 0 {
            self.give(self.taken.swap(0, Ordering::SeqCst));
        }
    }

    fn give(&self, less: usize) {
        self.budget.give(self.share, less);
        self.address.used[self.share as usize].fetch_sub(less, Ordering::Relaxed);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::super::budget::MEMORY_BYTES_MIN;
    use super::*;

    const SHARE: Share = Share::RequestUnits;

    fn address(number: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, number))
    }

    /// As much as it gets, in steps.
    fn fill(part: &Part) -> usize {
        let mut taken = 0;
        while part.cover_fairly(taken + 1) {
            taken = part.taken.load(Ordering::SeqCst);
        }
        taken
    }

    /// Eight connections had all that there was.
    #[test]
    fn i1_connections_that_take_all_they_get_leave_some_to_the_next_one() {
        let budget = Budget::new(MEMORY_BYTES_MIN);
        let parts: Vec<Part> =
            (0..16).map(|from| Part::new(&budget, &budget.address(address(from)), SHARE, 16)).collect();
        let got: Vec<usize> = parts.iter().map(fill).collect();
        assert_eq!(got[0], budget.limit(SHARE) / 8);
        assert!(got.iter().all(|got| *got >= 1_000), "{got:?}");
        drop(parts);
        assert_eq!(budget.used(SHARE), 0);
    }

    #[test]
    fn i1_many_connections_of_one_address_leave_half_to_other_addresses() {
        let budget = Budget::new(MEMORY_BYTES_MIN);
        let many: Vec<Part> =
            (0..500).map(|_| Part::new(&budget, &budget.address(address(1)), SHARE, 16)).collect();
        let got: usize = many.iter().map(fill).sum();
        assert!(got <= budget.limit(SHARE) / 2, "{got}");
        let other = Part::new(&budget, &budget.address(address(2)), SHARE, 16);
        assert!(fill(&other) >= budget.limit(SHARE) / 16 - 16);
        drop(many);
        assert_eq!(budget.address(address(1)).used[SHARE as usize].load(Ordering::Relaxed), 0);
    }
}
