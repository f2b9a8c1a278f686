//! Whether this node may stand for election.
//!
//! Several parts of a node know reasons why it should not lead just now. Each one names its reason here and takes it back
//! later; openraft stands for election only while there is none. This is the one place that tells openraft so.
//!
//! A reason concerns standing only. Whether a node grants its vote to another one is decided where the request arrives
//! (`transport/peer.rs`).
//!
//! - `standing.I1`: openraft may elect exactly while no reason is set, whatever the order in which reasons come and go.

use std::sync::OnceLock;

use parking_lot::Mutex;

/// Why a node must not stand for election. More than one may hold at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Reason {
    /// It may lack what it once acknowledged, or has forgotten a vote (`group::catch_up`).
    CatchingUp = 1 << 0,
    /// The leader was heard lately, or this node was itself stopped for a while.
    LeaderNotSilent = 1 << 1,
}

impl Reason {
    const ALL: [Reason; 2] = [Reason::CatchingUp, Reason::LeaderNotSilent];

    /// The reason as the log and the status say it.
    fn text(self) -> &'static str {
        match self {
            Reason::CatchingUp => "it is catching up",
            Reason::LeaderNotSilent => "the leader's silence is not proved",
        }
    }
}

/// Tells openraft whether it may stand for election.
type Elect = Box<dyn Fn(bool) + Send + Sync>;

/// The reasons that hold now.
#[derive(Default)]
pub(crate) struct Eligibility {
    reasons: Mutex<u32>,
    elect: OnceLock<Elect>,
}

impl Eligibility {
    /// Sets or takes back one reason.
    pub(crate) fn set(&self, reason: Reason, holds: bool) {
        let mut reasons = self.reasons.lock();
        if holds {
            *reasons |= reason as u32;
        } else {
            *reasons &= !(reason as u32);
        }
        self.tell(*reasons);
    }

    /// From now on openraft is told.
    pub(crate) fn attach(&self, elect: impl Fn(bool) + Send + Sync + 'static) {
        let reasons = self.reasons.lock();
        let _ = self.elect.set(Box::new(elect));
        self.tell(*reasons);
    }

    /// `standing.I1`: called with the lock held, so that openraft hears the last word last.
    fn tell(&self, reasons: u32) {
        if let Some(elect) = self.elect.get() {
            elect(reasons == 0);
        }
    }

    /// Whether no reason holds: an election timeout may start an election.
    pub(crate) fn may_stand(&self) -> bool {
        *self.reasons.lock() == 0
    }

    /// Whether this node may lead once the leader hands over or its process is known to be dead: then its silence needs no
    /// proof.
    pub(crate) fn may_lead(&self) -> bool {
        *self.reasons.lock() & !(Reason::LeaderNotSilent as u32) == 0
    }

    /// The reasons that hold, in words.
    pub(crate) fn reasons(&self) -> Vec<&'static str> {
        texts(*self.reasons.lock())
    }

    /// Those that an operator should know of, in words. A leader that is heard is the usual state of a group.
    pub(crate) fn obstacles(&self) -> Vec<&'static str> {
        texts(*self.reasons.lock() & !(Reason::LeaderNotSilent as u32))
    }
}

fn texts(reasons: u32) -> Vec<&'static str> {
    let held = Reason::ALL.into_iter().filter(|reason| reasons & *reason as u32 != 0);
    held.map(Reason::text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standing_i1_one_reason_is_not_taken_back_with_another() {
        let eligibility = Eligibility::default();
        assert!(eligibility.may_stand());
        eligibility.set(Reason::CatchingUp, true);
        eligibility.set(Reason::LeaderNotSilent, true);
        eligibility.set(Reason::CatchingUp, true);
        assert!(!eligibility.may_lead() && eligibility.obstacles() == [Reason::CatchingUp.text()]);
        eligibility.set(Reason::CatchingUp, false);
        assert_eq!(eligibility.reasons(), [Reason::LeaderNotSilent.text()]);
        assert!(
            eligibility.obstacles().is_empty(),
            "each follower of a healthy group was told of as if it had a fault"
        );
        assert!(eligibility.may_lead() && !eligibility.may_stand());
        eligibility.set(Reason::LeaderNotSilent, false);
        assert!(eligibility.may_stand() && eligibility.reasons().is_empty());
    }
}
