//! What a node knows of its own losses, and what it may do with them: vote, and follow.
//!
//! A node whose log is empty while its group runs did not lose a race: it lost its disk, or is new. Had it voted, a
//! candidate without acknowledged messages could win, because nobody remembers that this node had stored them. So it
//! writes a file before it speaks to anybody, and votes again only when it is certain that nothing depends on what it has
//! forgotten. `begin.rs` finds out whether anything was lost; `catch_up.rs` finds out when it does not matter any more, and
//! has the proof.
//!
//! - `founding.I1`: an empty log never founds a group that another member's log already belongs to, and a node founds one
//!   alone only where its configuration says that the group has one voter (`single_node`).
//! - `founding.I2`: a node that lost its log, or in asynchronous mode may have lost its end, grants no vote before it has
//!   caught up (`peer.I2`), through any restart in between. The one exception is a [`Ballot`].
//! - `founding.I3`: when the group is founded, every member knows the group's id and that its empty log is no loss: a node that
//!   refuses votes from then on has lost something. The founder tells each one, and it counts only in the start that it was
//!   asked in.
//! - `founding.I4`: a node that has forgotten its vote acknowledges nothing to any leader before it knows that no leader can
//!   be deposed with a vote that it has forgotten (`catch_up.I1`, `catch_up.I2`); then it follows leaders of that term or a later
//!   one.
//! - `founding.I5`: a node that comes back with an older copy of its disk grants no vote, from the first append on that a leader
//!   sends it to which it has acknowledged more. It does not know what only a leader that died meanwhile could tell it. The
//!   copy may have been made while the node was catching up: that its vote is old, too, shows where it is older than the
//!   leader's, for an entry is acknowledged only after its leader's vote was stored.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use folio_engine::disk::{Disk, OpenMode, is_full, temporary_beside, write_atomically};
use folio_engine::record::EntryId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::group_id::GroupIdFile;

/// For which candidates a node that lost something votes, before it has caught up (`catch_up.I2`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ballot {
    /// Every other member has named its term, and this is the latest: this node votes in later ones only.
    pub(crate) above: u64,
    /// The furthest end of a log that any member has named: this node votes for no shorter log.
    pub(crate) at_least: Option<EntryId>,
}

/// Why a vote is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoVote {
    /// It is not known yet what a vote could do.
    CatchingUp,
    /// This node may have voted in that term. The candidate has to take a later one than this.
    TermTooLow(u64),
    /// The candidate's log is shorter than another member's.
    LogTooShort,
}

/// Bytes of a note at most.
const NOTE_BYTES_MAX: u64 = 256;

/// Nodes that have called this one and are remembered, at most.
const CALLERS_MAX: usize = 64;

const MARKER_TEXT: &[u8] = b"this node lost part of its log and does not vote until it has caught up\n";
/// The same, for a node that has a vote on its disk which is not its latest.
const MARKER_TEXT_OLD_VOTE: &[u8] =
    b"this node lost part of its log and votes it gave, and does not vote until it has caught up\n";

fn marker(data_dir: &Path) -> PathBuf {
    data_dir.join("catching-up")
}

/// Durably notes, before a group is there, that this node does not vote until it has caught up. A note that it has forgotten
/// votes says so already, and more.
pub(crate) fn note_loss(disk: &dyn Disk, data_dir: &Path) -> io::Result<()> {
    let marker = marker(data_dir);
    if disk.exists(&marker)? && read(disk, &marker)? == MARKER_TEXT_OLD_VOTE {
        return Ok(());
    }
    write_atomically(disk, &marker, MARKER_TEXT)
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

/// What is not certain of this node's log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Doubt {
    /// Nothing: it votes.
    #[default]
    No,
    /// The log was empty at the start, and it is not known yet whether that is a loss.
    Undecided,
    /// Something was lost.
    CatchingUp,
}

#[derive(Debug, Default)]
struct State {
    doubt: Doubt,
    /// The vote on this node's disk is older than one it has given.
    old_vote: bool,
    /// The earliest term that a leader may have, once that is known (`founding.I4`).
    floor: Option<u64>,
    ballot: Option<Ballot>,
    /// What the marker is to say, and does not yet: the disk did not take it.
    unmarked: Option<&'static [u8]>,
    /// Losses noted since the start: what makes up for one is not known to make up for a later one.
    losses: u64,
}

/// Whether this node may have lost something, and what that means.
pub(crate) struct Founding {
    disk: Arc<dyn Disk>,
    marker: PathBuf,
    start: u64,
    /// The group's id, once it is known.
    pub(crate) group_id: Arc<GroupIdFile>,
    state: Mutex<State>,
    /// Held while the marker is changed.
    marking: Mutex<()>,
    /// Where nodes are that have called this one.
    callers: Mutex<BTreeMap<u64, String>>,
    /// Told when it begins to catch up.
    begun: Notify,
}

impl Founding {
    /// Reads what is known of losses, and notes durably what is not certain yet, before this node speaks to anybody:
    /// with an empty log it may have had another one before, and after a reboot asynchronous flushing may have lost the
    /// end (`unsynced_boot` is this start of the machine in that mode). A crash at any moment leaves the marker behind.
    ///
    /// A marker beside an empty log and a group's id is that of a node that has joined its group. An id alone is left of a
    /// founding that came to nothing.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        data_dir: &Path,
        names: (&str, &str),
        log_is_empty: bool,
        unsynced_boot: Option<&str>,
    ) -> io::Result<Founding> {
        let marker = marker(data_dir);
        let accepted = accepts_loss(&*disk, data_dir)?;
        let marked = if disk.exists(&marker)? { Some(read(&*disk, &marker)?) } else { None };
        let group_id = Arc::new(GroupIdFile::open(disk.clone(), data_dir, names, log_is_empty)?);
        let doubt = match (&marked, log_is_empty && !accepted) {
            (None, false) => Doubt::No,
            (Some(_), false) => Doubt::CatchingUp,
            (Some(_), true) if group_id.get().is_some() => Doubt::CatchingUp,
            (_, true) => Doubt::Undecided,
        };
        let old_vote = marked.as_deref() == Some(MARKER_TEXT_OLD_VOTE);
        let state = State { doubt, old_vote, ..State::default() };
        let founding = Founding {
            disk,
            marker,
            start: RandomState::new().hash_one("start"),
            group_id,
            state: Mutex::new(state),
            marking: Mutex::default(),
            callers: Mutex::default(),
            begun: Notify::new(),
        };
        if doubt == Doubt::Undecided && marked.is_none() {
            founding.group_id.forget()?;
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
        if rebooted && !self.refuses_votes() {
            tracing::warn!(
                "the machine has rebooted since records were acknowledged from memory: some may be gone"
            );
            match self.begin_catch_up(false) {
                // The old note stays: by it the next start knows the same.
                Err(error) if is_full(&error) => {
                    self.state.lock().unmarked = None;
                    return Ok(());
                }
                noted => noted?,
            }
        }
        match boot {
            // There already; whether its name is durable is not known.
            Some(_) if before.as_deref() == now => self.disk.sync_dir(note.parent().unwrap_or(&note)),
            Some(boot) => match write_atomically(&*self.disk, &note, boot.as_bytes()) {
                // The note of another boot says the same at the next start, or more.
                Err(error) if is_full(&error) && before.is_some() => Ok(()),
                written => written,
            },
            None if before.is_some() => self.disk.remove(&note),
            None => Ok(()),
        }
    }

    /// The log was closed with everything on disk. The note becomes the temporary file of the next one: so that has its space
    /// on a disk that is full by then.
    pub(crate) fn note_synced(&self) -> io::Result<()> {
        let note = self.unsynced();
        if self.disk.exists(&note)? { self.disk.rename(&note, &temporary_beside(&note)) } else { Ok(()) }
    }

    fn unsynced(&self) -> PathBuf {
        self.marker.with_file_name("unsynced")
    }

    /// Whether a vote of this node could forget what it once acknowledged (founding.I2).
    pub(crate) fn refuses_votes(&self) -> bool {
        self.state.lock().doubt != Doubt::No
    }

    /// Every other member has said that nothing was ever committed: this node's empty log is no loss.
    pub(crate) fn nothing_lost(&self) -> io::Result<()> {
        self.caught_up(self.losses()).map(drop)
    }

    /// How many losses were noted since the start.
    pub(crate) fn losses(&self) -> u64 {
        self.state.lock().losses
    }

    /// The random number of this start, by which a word said to an earlier one is told apart.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Whether the vote on this node's disk is the latest that it has given. `has_vote`: there is one.
    pub(crate) fn knows_its_vote(&self, has_vote: bool) -> bool {
        has_vote && !self.state.lock().old_vote
    }

    /// Whether this node may follow a leader of `term` (`founding.I4`). A node that still has its vote knows by that.
    pub(crate) fn may_follow(&self, term: u64, has_vote: bool) -> bool {
        let state = self.state.lock();
        let knows_its_vote = has_vote && !state.old_vote;
        state.doubt == Doubt::No || knows_its_vote || state.floor.is_some_and(|floor| term >= floor)
    }

    /// From `term` on no vote that this node has forgotten can elect a leader: it may follow those of that term and later ones.
    /// `losses` were noted when that was asked; a later one is not made up for.
    pub(crate) fn follow_from(&self, term: u64, losses: u64) {
        let mut state = self.state.lock();
        if state.losses == losses {
            state.floor = Some(state.floor.map_or(term, |floor| floor.max(term)));
        }
    }

    /// Every other member has answered: which votes this node gives before it has caught up. `losses` as above.
    pub(crate) fn allow(&self, ballot: Ballot, losses: u64) {
        let mut state = self.state.lock();
        if state.losses == losses {
            state.ballot = Some(ballot);
        }
        drop(state);
        self.follow_from(ballot.above, losses);
    }

    /// Other members have to be asked than those that the ballot is by.
    pub(crate) fn revoke_ballot(&self) {
        self.state.lock().ballot = None;
    }

    /// The ballot that is in force.
    pub(crate) fn ballot(&self) -> Option<Ballot> {
        self.state.lock().ballot
    }

    /// Whether this node gives its vote in `term` to a candidate whose log ends with `last` (`peer.I2`); its log and vote
    /// are not looked at here.
    pub(crate) fn may_grant(&self, term: u64, last: Option<EntryId>) -> Result<(), NoVote> {
        let state = self.state.lock();
        match state.ballot {
            _ if state.doubt == Doubt::No => Ok(()),
            None => Err(NoVote::CatchingUp),
            Some(ballot) if term <= ballot.above => Err(NoVote::TermTooLow(ballot.above)),
            Some(ballot) if last < ballot.at_least => Err(NoVote::LogTooShort),
            Some(_) => Ok(()),
        }
    }

    pub(crate) fn is_undecided(&self) -> bool {
        self.state.lock().doubt == Doubt::Undecided
    }

    pub(crate) fn is_catching_up(&self) -> bool {
        self.state.lock().doubt == Doubt::CatchingUp
    }

    /// Notes, durably, that this node does not vote. `old_vote`: the vote on its disk is not the latest it has given, so that
    /// it follows nobody before it knows whom it may follow. It does not vote even if the disk does not take the note; see
    /// [`Founding::mark`] then.
    pub(crate) fn begin_catch_up(&self, old_vote: bool) -> io::Result<()> {
        let mut state = self.state.lock();
        let old_vote = old_vote || state.old_vote;
        let text = if old_vote { MARKER_TEXT_OLD_VOTE } else { MARKER_TEXT };
        let losses = state.losses + 1;
        *state =
            State { doubt: Doubt::CatchingUp, old_vote, unmarked: Some(text), losses, ..State::default() };
        drop(state);
        self.begun.notify_one();
        self.mark()
    }

    /// Tries once more to store a note that the disk did not take, if there is one.
    pub(crate) fn mark(&self) -> io::Result<()> {
        if self.state.lock().unmarked.is_none() {
            return Ok(());
        }
        let _marking = self.marking.lock();
        let Some(text) = self.state.lock().unmarked else { return Ok(()) };
        write_atomically(&*self.disk, &self.marker, text)?;
        let mut state = self.state.lock();
        state.unmarked = state.unmarked.filter(|new| *new != text);
        Ok(())
    }

    /// Waits until it was noted that this node does not vote.
    pub(crate) async fn has_to_catch_up(&self) {
        while !self.is_catching_up() {
            self.begun.notified().await;
        }
    }

    /// Durably notes that this node holds all that is committed and votes again; false where another loss was noted after
    /// these.
    pub(crate) fn caught_up(&self, losses: u64) -> io::Result<bool> {
        let _marking = self.marking.lock();
        if self.losses() != losses {
            return Ok(false);
        }
        if self.disk.exists(&self.marker)? {
            self.disk.remove(&self.marker)?;
        }
        if let Some(dir) = self.marker.parent() {
            self.disk.sync_dir(dir)?;
        }
        let mut state = self.state.lock();
        // One that was noted meanwhile writes its marker after this.
        let is_last = state.losses == losses;
        if is_last {
            *state = State { losses, ..State::default() };
        }
        Ok(is_last)
    }

    /// A node has called from that address: it may know the group when the configuration's nodes are gone.
    pub(crate) fn note_caller(&self, id: u64, address: &str) {
        let mut callers = self.callers.lock();
        if !address.is_empty() && (callers.len() < CALLERS_MAX || callers.contains_key(&id)) {
            callers.insert(id, address.to_owned());
        }
    }

    /// Nodes that have called this one, and where they are.
    pub(crate) fn callers(&self) -> BTreeMap<u64, String> {
        self.callers.lock().clone()
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
mod tests;
