//! How a group begins, and how a node that lost its log comes back.
//!
//! A group is founded once: by the member with the lowest id, after every member has said that its log is
//! empty. A node whose log is empty while another member's is not did not lose a race: it lost its disk (or is
//! new). Had it voted, a candidate without acknowledged messages could win, because nobody remembers that this
//! node had stored them. So it does not vote, and says so in a file, until it holds all that is committed.
//!
//! - `founding.I1`: an empty log never founds a group that another member's log already belongs to.
//! - `founding.I2`: a node that lost its log grants no vote before it has caught up (`peer.I2`), through any
//!   restart in between.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use folio_engine::disk::{Disk, write_atomically};
use serde::{Deserialize, Serialize};

/// What a member says of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogSummary {
    /// Index of the last entry; the founding membership alone is 0.
    pub(crate) last_index: Option<u64>,
}

/// What to do, seen from one look at all members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Found the group now.
    Found,
    /// Wait for the founder, or for members that do not answer.
    Wait,
    /// The group runs already: catch up before voting.
    CatchUp,
}

/// Decides what a node with an empty log does. `others`: what each other member answered, if it did.
pub(crate) fn decide(is_lowest: bool, others: &[Option<LogSummary>]) -> Step {
    // Index 0 is the founding membership; 1 is the first leader's entry, after which entries may be committed.
    if others.iter().flatten().any(|log| log.last_index >= Some(1)) {
        return Step::CatchUp;
    }
    let all_empty = others.iter().all(|log| matches!(log, Some(LogSummary { last_index: None })));
    if is_lowest && all_empty { Step::Found } else { Step::Wait }
}

/// How often members are asked while the group is not founded.
pub(crate) const ASK_INTERVAL: Duration = Duration::from_millis(100);

/// Whether this node is catching up after its log was lost.
pub(crate) struct Founding {
    disk: Arc<dyn Disk>,
    marker: PathBuf,
    catching_up: AtomicBool,
    /// The log was empty at the start, and the other members have not all said yet that theirs are too.
    undecided: AtomicBool,
}

impl Founding {
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        data_dir: &std::path::Path,
        log_is_empty: bool,
    ) -> io::Result<Founding> {
        let marker = data_dir.join("catching-up");
        let catching_up = AtomicBool::new(disk.exists(&marker)?);
        Ok(Founding { disk, marker, catching_up, undecided: AtomicBool::new(log_is_empty) })
    }

    /// Whether a vote of this node could forget what it once acknowledged (founding.I2).
    pub(crate) fn refuses_votes(&self) -> bool {
        self.undecided.load(Ordering::Acquire) || self.is_catching_up()
    }

    /// Every other member has said that nothing was ever committed: this node's empty log is no loss.
    pub(crate) fn nothing_lost(&self) {
        self.undecided.store(false, Ordering::Release);
    }

    pub(crate) fn is_catching_up(&self) -> bool {
        self.catching_up.load(Ordering::Acquire)
    }

    /// Durably notes that this node does not vote.
    pub(crate) fn begin_catch_up(&self) -> io::Result<()> {
        self.catching_up.store(true, Ordering::Release);
        self.undecided.store(false, Ordering::Release);
        write_atomically(
            &*self.disk,
            &self.marker,
            b"this node lost its log and does not vote until it has caught up\n",
        )
    }

    /// Durably notes that this node holds all that is committed and votes again.
    pub(crate) fn caught_up(&self) -> io::Result<()> {
        self.disk.remove(&self.marker)?;
        if let Some(dir) = self.marker.parent() {
            self.disk.sync_dir(dir)?;
        }
        self.undecided.store(false, Ordering::Release);
        self.catching_up.store(false, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: Option<LogSummary> = Some(LogSummary { last_index: None });
    const FOUNDED: Option<LogSummary> = Some(LogSummary { last_index: Some(0) });
    const RUNNING: Option<LogSummary> = Some(LogSummary { last_index: Some(1) });

    #[test]
    fn only_the_lowest_founds_and_only_when_every_log_is_empty() {
        assert_eq!(decide(true, &[EMPTY, EMPTY]), Step::Found);
        assert_eq!(decide(false, &[EMPTY, EMPTY]), Step::Wait);
        assert_eq!(decide(true, &[EMPTY, None]), Step::Wait, "a silent member may hold the log");
        assert_eq!(decide(false, &[FOUNDED, EMPTY]), Step::Wait);
    }

    #[test]
    fn an_empty_log_beside_a_running_group_catches_up_before_it_votes() {
        assert_eq!(decide(true, &[RUNNING, EMPTY]), Step::CatchUp);
        assert_eq!(decide(true, &[RUNNING, None]), Step::CatchUp);
        assert_eq!(decide(false, &[None, RUNNING]), Step::CatchUp);
    }
}
