//! The bytes that clients can make a node hold: one sum for the node, divided into shares.
//!
//! Each share has a limit of its own, so that what fills one leaves the others alone: a flood of half frames does not take
//! the room of answers. What one connection and one address may have of a share: `parts` and `frames`. A share that is used up refuses; what its user does then (wait, read no more, close the client that
//! holds the most) is that user's business.
//!
//! | share | of the sum | what is in it |
//! |---|---|---|
//! | buffers | 2/16 | read buffers of up to 256 KiB, beyond the little that each connection may have |
//! | frames | 5/16 | buffers of frames that are longer than that, or come when `buffers` is used up, see `frames` |
//! | requests | 3/16 | requests that are served |
//! | reads | 1/16 | what is read from the disk for answers, see `reads` |
//! | answers | 3/16 | what clients have not read yet |
//! | held pulls | 2/16 | pulls that wait for a message: as a number of them, see `polls` |
//!
//! Requests have a number as well ([`Share::RequestUnits`]): thousands of small ones keep processors busy for long, and others
//! waiting.
//!
//! - `budget.I1`: no share holds more than its limit, and what a [`Taken`] holds is given back when it is dropped.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use folio_broker::reads::Reads;
use folio_protocol::limits::FRAME_BYTES_MAX;

use super::addresses::{AddressUse, Addresses};
use super::frames::Frames;
use super::share::{SIXTEENTHS, Share};

/// The least sum: `frames` takes one frame of the largest size then, and some more.
pub(crate) const MEMORY_BYTES_MIN: usize = 64 << 20;
/// The largest sum.
pub(crate) const MEMORY_BYTES_MAX: usize = 1 << 40;
/// What a held pull has, besides what it is weighed for.
const HELD_PULL_BYTES: usize = 2 * 1024;
const _: () = assert!(MEMORY_BYTES_MIN / SIXTEENTHS * 5 / 8 * 7 > FRAME_BYTES_MAX);

/// The shares of one node.
#[derive(Debug)]
pub struct Budget {
    shares: [Pot; Share::COUNT],
    frames: Arc<Frames>,
    addresses: Addresses,
    reads: Arc<Reads>,
    held_pulls_max: usize,
}

#[derive(Debug)]
struct Pot {
    used: AtomicUsize,
    max: usize,
}

impl Budget {
    /// `memory_bytes` divided; nothing is taken yet.
    pub fn new(memory_bytes: usize) -> Arc<Self> {
        let sum = memory_bytes.clamp(MEMORY_BYTES_MIN, MEMORY_BYTES_MAX);
        let pot = |share: Share| Pot { used: AtomicUsize::new(0), max: share.max(sum) };
        Arc::new(Self {
            shares: Share::ALL.map(pot),
            frames: Frames::new(sum / SIXTEENTHS * 5),
            addresses: Addresses::default(),
            reads: Arc::new(Reads::new(sum / SIXTEENTHS)),
            held_pulls_max: sum / SIXTEENTHS * 2 / HELD_PULL_BYTES,
        })
    }

    fn pot(&self, share: Share) -> &Pot {
        &self.shares[share as usize]
    }

    /// Takes bytes of a share; `None` if they are not left (`budget.I1`).
    pub fn take(self: &Arc<Self>, share: Share, bytes: usize) -> Option<Taken> {
        let mut taken = Taken::nothing(self, share);
        taken.resize(bytes).then_some(taken)
    }

    /// How many bytes of a share are taken.
    pub fn used(&self, share: Share) -> usize {
        self.pot(share).used.load(Ordering::Relaxed)
    }

    /// How many bytes a share has.
    pub fn limit(&self, share: Share) -> usize {
        self.pot(share).max
    }

    /// Whether less is left of a share than `bytes`.
    pub(super) fn lacks(&self, share: Share, bytes: usize) -> bool {
        self.limit(share).saturating_sub(self.used(share)) < bytes
    }

    /// What the connections of an address have of the shares together.
    pub(super) fn address(&self, address: IpAddr) -> Arc<AddressUse> {
        self.addresses.of(address.to_canonical())
    }

    /// The memory of long frames.
    pub(super) fn frames(&self) -> &Arc<Frames> {
        &self.frames
    }

    /// The memory of what is read from the disk for answers.
    pub fn reads(&self) -> &Arc<Reads> {
        &self.reads
    }

    /// Bytes taken for long frames.
    pub fn frame_bytes(&self) -> usize {
        self.frames.bytes()
    }

    /// The most that may be.
    pub fn frame_bytes_max(&self) -> usize {
        self.frames.bytes_max()
    }

    /// Pulls that may wait for a message at a time.
    pub fn held_pulls_max(&self) -> usize {
        self.held_pulls_max
    }

    pub(super) fn grab(&self, share: Share, bytes: usize) -> bool {
        let pot = self.pot(share);
        let within = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= pot.max);
        pot.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok()
    }

    pub(super) fn give(&self, share: Share, bytes: usize) {
        let before = self.pot(share).used.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "budget.I1: more given back than taken of {share:?}");
    }
}

/// Bytes of a share; dropped, they are given back.
#[derive(Debug)]
pub struct Taken {
    budget: Arc<Budget>,
    share: Share,
    bytes: usize,
}

impl Taken {
    /// No bytes of a share, to become more later.
    pub fn nothing(budget: &Arc<Budget>, share: Share) -> Self {
        Self { budget: budget.clone(), share, bytes: 0 }
    }

    /// How many.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes it so many. Less is always possible; more is refused, and nothing changed, if it is not left.
    #[must_use]
    pub fn resize(&mut self, bytes: usize) -> bool {
        if bytes > self.bytes && !self.budget.grab(self.share, bytes - self.bytes) {
            return false;
        }
        if bytes < self.bytes {
            self.budget.give(self.share, self.bytes - bytes);
        }
        self.bytes = bytes;
        true
    }

    /// All of it, to be given back apart.
    pub(super) fn split(&mut self) -> Self {
        Self { budget: self.budget.clone(), share: self.share, bytes: std::mem::take(&mut self.bytes) }
    }

    /// Gives all of it back.
    pub fn clear(&mut self) {
        if self.bytes > 0 {
            self.budget.give(self.share, std::mem::take(&mut self.bytes));
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i1_a_share_gives_no_more_than_it_has_and_gets_back_what_it_gave() {
        let budget = Budget::new(MEMORY_BYTES_MIN);
        let max = budget.limit(Share::Answers);
        let mut most = budget.take(Share::Answers, max - 10).expect("it is left");
        assert!(budget.take(Share::Answers, 11).is_none());
        let rest = budget.take(Share::Answers, 10).expect("it is left");
        assert!(!most.resize(max), "the rest is taken");
        assert_eq!((most.bytes(), budget.used(Share::Answers)), (max - 10, max));
        drop(rest);
        assert!(most.resize(max) && most.resize(3));
        assert_eq!(budget.used(Share::Answers), 3);
        drop(most);
        assert_eq!(budget.used(Share::Answers), 0);
    }

    #[test]
    fn one_share_that_is_used_up_leaves_the_others_alone() {
        let budget = Budget::new(MEMORY_BYTES_MIN);
        let all: Vec<Taken> = Share::ALL
            .into_iter()
            .filter(|share| *share != Share::RequestUnits)
            .map(|share| budget.take(share, budget.limit(share)).expect("each has its own"))
            .collect();
        let held = budget.held_pulls_max() * HELD_PULL_BYTES;
        let sum = all.iter().map(Taken::bytes).sum::<usize>()
            + budget.frame_bytes_max()
            + budget.reads().bytes_max()
            + held;
        assert_eq!(sum, MEMORY_BYTES_MIN);
    }

    #[test]
    fn i1_threads_at_once_take_no_more_than_there_is() {
        let budget = Budget::new(MEMORY_BYTES_MIN);
        let piece = budget.limit(Share::Requests) / 8;
        let kept: usize = std::thread::scope(|scope| {
            let take = || (0..8).filter_map(|_| budget.take(Share::Requests, piece)).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            let kept: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
            kept.iter().map(Vec::len).sum()
        });
        assert_eq!((kept, budget.used(Share::Requests)), (8, 0));
    }
}
