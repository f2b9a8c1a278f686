//! How a group begins, and how a node that lost its log comes back.
//!
//! A group is founded once: by the member with the lowest id, after every member has said that its log is
//! empty. A node whose log is empty while another member's is not did not lose a race: it lost its disk (or is
//! new). Had it voted, a candidate without acknowledged messages could win, because nobody remembers that this
//! node had stored them. So it does not vote, and says so in a file, until it holds all that is committed.
//!
//! - `founding.I1`: an empty log never founds a group that another member's log already belongs to.
//! - `founding.I2`: a node that lost its log, or in asynchronous mode may have lost its end, grants no vote before it has caught up (`peer.I2`), through any
//!   restart in between.
//! - `founding.I4`: a node that has lost its vote with its log follows no leader of an earlier term than any it may have voted
//!   in: such a leader may have been deposed with its help, and with its help again would commit beside its successor.
//! - `founding.I5`: a node that comes back with an older copy of its disk grants no vote, from the first append on that a leader
//!   sends it to which it has acknowledged more. What only a leader that died meanwhile could tell it, it does not know.
//! - `founding.I3`: when the group is founded, every member knows that its empty log is no loss: whoever refuses votes from
//!   then on has lost something. The founder tells each one, and the word counts only in the start that it was asked in.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use folio_engine::disk::{Disk, OpenMode, write_atomically};
use folio_engine::record::EntryId;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// What a member says of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogSummary {
    /// Term of the last entry; 0 when there is none.
    pub(crate) last_term: u64,
    /// Index of the last entry; the founding membership alone is 0.
    pub(crate) last_index: Option<u64>,
    /// The number of the member's start: another one each time, and never the one before.
    pub(crate) start: u64,
    /// Whether the member itself may lack what it once acknowledged.
    pub(crate) lost: bool,
    /// The term of its vote, 0 before it ever took part.
    pub(crate) term: u64,
    /// Whether it leads in that term.
    pub(crate) leads: bool,
}

impl LogSummary {
    /// The last entry.
    pub(crate) fn last(&self) -> Option<EntryId> {
        self.last_index.map(|index| EntryId { term: self.last_term, index })
    }
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
    let all_empty = others.iter().all(|log| log.is_some_and(|log| log.last_index.is_none()));
    if is_lowest && all_empty { Step::Found } else { Step::Wait }
}

/// Bytes of a note at most.
const NOTE_BYTES_MAX: u64 = 256;
/// How often members are asked while the group is not founded.
pub(crate) const ASK_INTERVAL: Duration = Duration::from_millis(100);

/// More than any term.
const NO_TERM: u64 = u64::MAX;

const MARKER_TEXT: &[u8] = b"this node lost part of its log and does not vote until it has caught up\n";

fn marker(data_dir: &Path) -> PathBuf {
    data_dir.join("catching-up")
}

/// Durably notes, before a group is there, that this node does not vote until it has caught up.
pub(crate) fn note_loss(disk: &dyn Disk, data_dir: &Path) -> io::Result<()> {
    write_atomically(disk, &marker(data_dir), MARKER_TEXT)
}

/// The file by which an operator lays down that what only this node may have held is given up.
pub(crate) fn loss_acceptance(data_dir: &Path) -> PathBuf {
    data_dir.join("accept-loss")
}

/// Whether it is there.
pub(crate) fn is_loss_accepted(disk: &dyn Disk, data_dir: &Path) -> io::Result<bool> {
    disk.exists(&loss_acceptance(data_dir))
}

/// Whether an operator has laid down that what only this node may have held is given up. It counts for one start.
fn accepts_loss(disk: &dyn Disk, data_dir: &Path) -> io::Result<bool> {
    let word = loss_acceptance(data_dir);
    if !is_loss_accepted(disk, data_dir)? {
        return Ok(false);
    }
    tracing::error!(file = %word.display(), "as accept-loss says: this node votes without what it may have lost");
    let marker = marker(data_dir);
    if disk.exists(&marker)? {
        disk.remove(&marker)?;
    }
    disk.remove(&word)?;
    disk.sync_dir(data_dir)?;
    Ok(true)
}

/// Whether this node is catching up after its log was lost.
pub(crate) struct Founding {
    disk: Arc<dyn Disk>,
    marker: PathBuf,
    start: u64,
    /// The earliest term that a leader may have; [`NO_TERM`] until it is known.
    floor: AtomicU64,
    catching_up: AtomicBool,
    /// The log was empty at the start, and the other members have not all said yet that theirs are too.
    undecided: AtomicBool,
    /// Told when it begins to catch up.
    begun: Notify,
}

impl Founding {
    /// Reads what is known of losses, and notes durably what is not certain yet, before this node speaks to anybody:
    /// with an empty log it may have had another one before, and after a reboot asynchronous flushing may have lost the
    /// end (`unsynced_boot` is this start of the machine in that mode). A crash at any moment leaves the marker behind.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        data_dir: &Path,
        log_is_empty: bool,
        unsynced_boot: Option<&str>,
    ) -> io::Result<Founding> {
        let marker = marker(data_dir);
        let accepted = accepts_loss(&*disk, data_dir)?;
        let log_is_empty = log_is_empty && !accepted;
        let marked = disk.exists(&marker)?;
        let founding = Founding {
            disk,
            marker,
            floor: AtomicU64::new(NO_TERM),
            start: RandomState::new().hash_one("start"),
            catching_up: AtomicBool::new(marked && !log_is_empty),
            undecided: AtomicBool::new(log_is_empty),
            begun: Notify::new(),
        };
        if log_is_empty && !marked {
            write_atomically(&*founding.disk, &founding.marker, MARKER_TEXT)?;
        }
        founding.note_unsynced(unsynced_boot)?;
        Ok(founding)
    }

    /// Notes whether the log's end may be in the page cache only. If the machine has rebooted since such a note,
    /// acknowledged records may be gone: that is noted first, and only then is the old note replaced.
    fn note_unsynced(&self, boot: Option<&str>) -> io::Result<()> {
        let note = self.unsynced();
        let before = match self.disk.exists(&note)? {
            true => Some(read(&*self.disk, &note)?),
            false => None,
        };
        let now = boot.map(str::as_bytes);
        let rebooted = before.is_some() && (before.as_deref() != now || boot.is_none());
        if rebooted && !self.undecided.load(Ordering::Acquire) && !self.is_catching_up() {
            tracing::warn!(
                "the machine has rebooted since records were acknowledged from memory: some may be gone"
            );
            self.begin_catch_up()?;
        }
        match boot {
            Some(boot) => write_atomically(&*self.disk, &note, boot.as_bytes()),
            None if before.is_some() => self.disk.remove(&note),
            None => Ok(()),
        }
    }

    /// The log was closed with everything on disk.
    pub(crate) fn note_synced(&self) -> io::Result<()> {
        let note = self.unsynced();
        if self.disk.exists(&note)? { self.disk.remove(&note) } else { Ok(()) }
    }

    fn unsynced(&self) -> PathBuf {
        self.marker.with_file_name("unsynced")
    }

    /// Whether a vote of this node could forget what it once acknowledged (founding.I2).
    pub(crate) fn refuses_votes(&self) -> bool {
        self.undecided.load(Ordering::Acquire) || self.is_catching_up()
    }

    /// Every other member has said that nothing was ever committed: this node's empty log is no loss.
    pub(crate) fn nothing_lost(&self) -> io::Result<()> {
        self.caught_up()
    }

    /// The random number of this start, by which a word said to an earlier one is told apart.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Whether this node may follow a leader of `term` (`founding.I4`). A node that still has its vote knows by that.
    pub(crate) fn may_follow(&self, term: u64, has_vote: bool) -> bool {
        has_vote || !self.refuses_votes() || term >= self.floor.load(Ordering::Acquire)
    }

    /// So many others have named their terms that this node voted in no later one than `term`. It has not voted since it
    /// lost its vote, so this stays true.
    pub(crate) fn voted_by(&self, term: u64) {
        self.floor.store(term, Ordering::Release);
    }

    pub(crate) fn is_catching_up(&self) -> bool {
        self.catching_up.load(Ordering::Acquire)
    }

    /// Durably notes that this node does not vote.
    pub(crate) fn begin_catch_up(&self) -> io::Result<()> {
        write_atomically(&*self.disk, &self.marker, MARKER_TEXT)?;
        self.catching_up.store(true, Ordering::Release);
        self.undecided.store(false, Ordering::Release);
        self.begun.notify_one();
        Ok(())
    }

    /// Waits until it was noted that this node does not vote.
    pub(crate) async fn has_to_catch_up(&self) {
        while !self.is_catching_up() {
            self.begun.notified().await;
        }
    }

    /// Durably notes that this node holds all that is committed and votes again.
    pub(crate) fn caught_up(&self) -> io::Result<()> {
        if self.disk.exists(&self.marker)? {
            self.disk.remove(&self.marker)?;
        }
        if let Some(dir) = self.marker.parent() {
            self.disk.sync_dir(dir)?;
        }
        self.undecided.store(false, Ordering::Release);
        self.catching_up.store(false, Ordering::Release);
        Ok(())
    }
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read)?;
    let mut bytes = vec![0; file.len()?.min(NOTE_BYTES_MAX) as usize];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reboot_after_unsynced_acknowledgements_is_noticed_and_a_clean_stop_is_not() {
        let disk: Arc<dyn Disk> = Arc::new(folio_engine::disk::RealDisk);
        let dir = tempfile::TempDir::new().unwrap();
        let open = |boot| Founding::open(disk.clone(), dir.path(), false, boot).unwrap();
        let lost = |boot| open(boot).is_catching_up();
        assert!(!lost(Some("boot 1")), "the first start");
        assert!(!lost(Some("boot 1")), "a killed process leaves the page cache alone");
        assert!(lost(Some("boot 2")), "a power cut does not");
        assert!(lost(Some("boot 2")), "and that is not forgotten by starting once more");
        open(Some("boot 2")).caught_up().unwrap();
        assert!(lost(None), "not told by the mode of today");
        open(None).caught_up().unwrap();
        assert!(!lost(Some("boot 3")), "no note, no loss");
        open(Some("boot 3")).note_synced().unwrap();
        assert!(!lost(Some("boot 4")), "all was on disk");
    }

    #[test]
    fn a_node_killed_before_it_knew_why_its_log_was_empty_does_not_vote_with_part_of_one() {
        let disk: Arc<dyn Disk> = Arc::new(folio_engine::disk::RealDisk);
        let dir = tempfile::TempDir::new().unwrap();
        assert!(Founding::open(disk.clone(), dir.path(), true, None).unwrap().refuses_votes());
        // Meanwhile the leader has sent it a part of the log.
        let again = Founding::open(disk.clone(), dir.path(), false, None).unwrap();
        assert!(again.is_catching_up(), "founding.I2");
        again.nothing_lost().unwrap();
        assert!(!Founding::open(disk, dir.path(), false, None).unwrap().refuses_votes());
    }

    #[test]
    fn an_operator_who_accepts_the_loss_lets_a_node_vote_with_and_without_a_log() {
        let disk: Arc<dyn Disk> = Arc::new(folio_engine::disk::RealDisk);
        for empty in [true, false] {
            let dir = tempfile::TempDir::new().unwrap();
            let open = || Founding::open(disk.clone(), dir.path(), empty, None).unwrap();
            open().begin_catch_up().unwrap();
            assert!(open().refuses_votes());
            std::fs::write(dir.path().join("accept-loss"), "").unwrap();
            assert!(!open().refuses_votes());
            assert_eq!(open().refuses_votes(), empty, "it counts for one start");
        }
    }

    #[test]
    fn a_node_without_its_vote_follows_nobody_until_it_knows_how_late_it_may_have_voted() {
        let disk: Arc<dyn Disk> = Arc::new(folio_engine::disk::RealDisk);
        let dir = tempfile::TempDir::new().unwrap();
        let node = Founding::open(disk, dir.path(), true, None).unwrap();
        assert!(!node.may_follow(9, false) && node.may_follow(9, true), "founding.I4");
        node.begin_catch_up().unwrap();
        node.voted_by(5);
        assert!(!node.may_follow(4, false) && node.may_follow(5, false) && node.may_follow(6, false));
        node.caught_up().unwrap();
        assert!(node.may_follow(4, false), "openraft has a vote by now");
    }

    const EMPTY: Option<LogSummary> =
        Some(LogSummary { last_term: 0, last_index: None, start: 1, lost: false, term: 0, leads: false });
    const FOUNDED: Option<LogSummary> =
        Some(LogSummary { last_term: 0, last_index: Some(0), start: 1, lost: false, term: 0, leads: false });
    const RUNNING: Option<LogSummary> =
        Some(LogSummary { last_term: 1, last_index: Some(1), start: 1, lost: false, term: 0, leads: false });

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
