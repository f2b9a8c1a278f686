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

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use folio_engine::disk::{Disk, OpenMode, write_atomically};
use folio_engine::record::EntryId;
use serde::{Deserialize, Serialize};

/// What a member says of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogSummary {
    /// Term of the last entry; 0 when there is none.
    pub(crate) last_term: u64,
    /// Index of the last entry; the founding membership alone is 0.
    pub(crate) last_index: Option<u64>,
    /// Whether the member itself may lack what it once acknowledged.
    pub(crate) lost: bool,
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

const MARKER_TEXT: &[u8] = b"this node lost part of its log and does not vote until it has caught up\n";

fn marker(data_dir: &Path) -> PathBuf {
    data_dir.join("catching-up")
}

/// Durably notes, before a group is there, that this node does not vote until it has caught up.
pub(crate) fn note_loss(disk: &dyn Disk, data_dir: &Path) -> io::Result<()> {
    write_atomically(disk, &marker(data_dir), MARKER_TEXT)
}

/// Whether this node is catching up after its log was lost.
pub(crate) struct Founding {
    disk: Arc<dyn Disk>,
    marker: PathBuf,
    catching_up: AtomicBool,
    /// The log was empty at the start, and the other members have not all said yet that theirs are too.
    undecided: AtomicBool,
}

impl Founding {
    pub(crate) fn open(disk: Arc<dyn Disk>, data_dir: &Path, log_is_empty: bool) -> io::Result<Founding> {
        let marker = marker(data_dir);
        let catching_up = AtomicBool::new(disk.exists(&marker)?);
        Ok(Founding { disk, marker, catching_up, undecided: AtomicBool::new(log_is_empty) })
    }

    /// Notes that the log's end may be in the page cache only. `true`: the machine has rebooted since such a note,
    /// so acknowledged records may be gone from this node.
    pub(crate) fn note_unsynced(&self, boot_id: &str) -> io::Result<bool> {
        let note = self.unsynced();
        let rebooted = match self.disk.exists(&note)? {
            true => std::str::from_utf8(&read(&*self.disk, &note)?).ok() != Some(boot_id),
            false => false,
        };
        write_atomically(&*self.disk, &note, boot_id.as_bytes())?;
        Ok(rebooted)
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
        write_atomically(&*self.disk, &self.marker, MARKER_TEXT)
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
        let open = || Founding::open(disk.clone(), dir.path(), false).unwrap();
        assert!(!open().note_unsynced("boot 1").unwrap(), "the first start");
        assert!(!open().note_unsynced("boot 1").unwrap(), "a killed process leaves the page cache alone");
        assert!(open().note_unsynced("boot 2").unwrap(), "a power cut does not");
        open().note_synced().unwrap();
        assert!(!open().note_unsynced("boot 3").unwrap(), "all was on disk");
    }

    const EMPTY: Option<LogSummary> = Some(LogSummary { last_term: 0, last_index: None, lost: false });
    const FOUNDED: Option<LogSummary> = Some(LogSummary { last_term: 0, last_index: Some(0), lost: false });
    const RUNNING: Option<LogSummary> = Some(LogSummary { last_term: 1, last_index: Some(1), lost: false });

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
