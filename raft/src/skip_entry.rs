//! Entries with commands that no replica is to apply, as an operator has laid down.
//!
//! A command is decoded and held against its bounds before it enters any log (`bounds.I1`, `appends.I1`). One that is in a log
//! all the same, written by an earlier build or damaged in a way that no checksum shows, would stop every node that comes to
//! it, at every start. So the error names the entry and this file: `skip-entry` in the group's data directory, one entry a
//! line as the error has it (`term.index`); `#` begins a comment. `apply` before an entry lets one into the log that is beyond
//! the bounds and that other replicas have applied: this replica applies it too. The file is read at the start.
//!
//! Skipping must be the same on all replicas, or their topics, groups and offsets differ from then on. Therefore:
//!
//! - `skip_entry.I1`: only an entry whose command does not decode is skipped, or one beyond the bounds. The first kind was
//!   applied by nobody: whoever is past it has skipped it. One that a newer build knows is no such command: nodes of that build
//!   have applied it, and it is skipped by none. The second kind may have been applied, and is then to be applied by
//!   all; otherwise it is to be named on every node.
//! - `skip_entry.I2`: an entry that was skipped changes nothing: the state after it is the state before it. Messages that a
//!   transition has beside its commands are stored all the same: their queue offsets are given.
//!
//! The file stays as long as the entry is in the log: a replica that gets the log later needs it as well.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use folio_engine::disk::{Disk, OpenMode};
use folio_engine::record::EntryId;
use folio_state::Command;
use folio_state::bounds::OutOfBounds;

use crate::codec::CodecError;

const FILE: &str = "skip-entry";
/// Bytes of the file at most.
const FILE_BYTES_MAX: usize = 64 << 10;

/// Why a command is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadCommand {
    /// It is no command of this build, nor of any that this build has heard of.
    #[error("its command does not decode ({0})")]
    Undecodable(CodecError),
    /// It is one of a newer build, whose nodes have applied it.
    #[error("{0}")]
    Newer(CodecError),
    /// It is one that nobody may propose.
    #[error("its command is beyond the limits ({0})")]
    OutOfBounds(#[from] OutOfBounds),
}

impl From<CodecError> for BadCommand {
    fn from(error: CodecError) -> BadCommand {
        if error.is_newer() { BadCommand::Newer(error) } else { BadCommand::Undecodable(error) }
    }
}

/// Why an entry is not taken, and how to go on.
#[derive(Debug, thiserror::Error)]
#[error("entry {id}: {bad}{}", remedy(.id, .bad, .file))]
pub(crate) struct BadEntry {
    id: EntryId,
    bad: BadCommand,
    /// Where an operator names entries.
    file: PathBuf,
}

/// What an operator may do besides what the reason says.
fn remedy(id: &EntryId, bad: &BadCommand, file: &Path) -> String {
    let file = file.display();
    let applied = match bad {
        BadCommand::Newer(_) => return String::new(),
        BadCommand::Undecodable(_) => String::new(),
        BadCommand::OutOfBounds(_) => {
            format!(
                " If other nodes have applied it, write `apply {id}` into the file {file} here and restart this node."
            )
        }
    };
    format!(
        ".{applied} To go on without this one entry, write {id} into the file {file} on every node of the group and restart it: \
         all replicas have to skip the same"
    )
}

/// Why the file is not taken.
#[derive(Debug, thiserror::Error)]
enum BadFile {
    #[error("more than {FILE_BYTES_MAX} bytes")]
    TooLong,
    #[error("not UTF-8")]
    NotText,
    #[error("line {number}: {line:?} is no entry; one is written as 3.1207, its term and its index")]
    Line { number: usize, line: String },
}

/// What is to be done with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Skip,
    Apply,
}

/// The entries that the file names.
#[derive(Debug, Default)]
pub(crate) struct SkipEntry {
    file: PathBuf,
    entries: BTreeMap<EntryId, Act>,
}

impl SkipEntry {
    /// Reads the file, if there is one. Blocks on the disk.
    pub(crate) fn read(disk: &dyn Disk, data_dir: &Path) -> io::Result<SkipEntry> {
        let file = data_dir.join(FILE);
        if !disk.exists(&file)? {
            return Ok(SkipEntry { file, entries: BTreeMap::new() });
        }
        let open = disk.open(&file, OpenMode::Read)?;
        let mut bytes = vec![0; (open.len()? as usize).min(FILE_BYTES_MAX + 1)];
        let read = open.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        let entries =
            parse(&bytes).map_err(|wrong| io::Error::other(format!("{}: {wrong}", file.display())))?;
        if !entries.is_empty() {
            tracing::warn!(file = %file.display(), ?entries, "these entries are skipped if their commands are no commands");
        }
        Ok(SkipEntry { file, entries })
    }

    /// Whether an operator wants the entry skipped.
    fn skips(&self, id: EntryId) -> bool {
        self.entries.get(&id) == Some(&Act::Skip)
    }

    /// The command to apply: none where the entry is skipped (`skip_entry.I1`). The error stops this node, and says how to go on.
    pub(crate) fn command(&self, id: EntryId, payload: &[u8]) -> io::Result<Option<Command>> {
        let (named, command) = (self.skips(id), Command::decode(payload).map_err(BadCommand::from));
        let bad = match command {
            Ok(command) => match command.check_bounds() {
                Ok(()) if named => {
                    tracing::warn!(entry = %id, "named in skip-entry, and applied: its command is one");
                    return Ok(Some(command));
                }
                Ok(()) => return Ok(Some(command)),
                Err(out) if named => BadCommand::from(out),
                // A build without these limits has let it in, and other replicas may have applied it.
                Err(out) => {
                    tracing::warn!(entry = %id, %out, "a command beyond the limits, from an earlier build, is applied");
                    return Ok(Some(command));
                }
            },
            // skip_entry.I1: nodes of that build have applied it.
            Err(bad @ BadCommand::Newer(_)) => return Err(io::Error::other(self.bad_entry(id, bad))),
            Err(bad) => bad,
        };
        if named {
            tracing::error!(entry = %id, reason = %bad, "as skip-entry says: this entry is skipped");
            return Ok(None);
        }
        Err(io::Error::other(self.bad_entry(id, bad)))
    }

    /// The same for the commands of a transition, all or none: none where one of them is skipped.
    pub(crate) fn commands(
        &self,
        id: EntryId,
        payloads: impl IntoIterator<Item = Bytes>,
    ) -> io::Result<Option<Vec<Command>>> {
        payloads.into_iter().map(|payload| self.command(id, &payload)).collect()
    }

    /// The command that replicas past the entry have applied: none where they have skipped it. One that is beyond the limits was
    /// skipped where the file says so, and one that does not decode by every replica (`skip_entry.I1`). Fails with a command of
    /// a newer build: nodes of that build have applied it, and what it did is not known here.
    pub(crate) fn applied(&self, id: EntryId, payload: &[u8]) -> Result<Option<Command>, CodecError> {
        match Command::decode(payload) {
            Ok(command) if self.skips(id) && command.check_bounds().is_err() => Ok(None),
            Ok(command) => Ok(Some(command)),
            Err(error) if error.is_newer() => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Whether a command may enter the log (`appends.I1`).
    pub(crate) fn admit(&self, id: EntryId, payload: &[u8]) -> Result<(), BadEntry> {
        let checked = match Command::decode(payload).map_err(BadCommand::from) {
            Err(bad @ BadCommand::Newer(_)) => Err(bad),
            _ if self.entries.contains_key(&id) => Ok(()),
            Ok(command) => command.check_bounds().map_err(BadCommand::from),
            Err(bad) => Err(bad),
        };
        checked.map_err(|bad| self.bad_entry(id, bad))
    }

    fn bad_entry(&self, id: EntryId, bad: BadCommand) -> BadEntry {
        BadEntry { id, bad, file: self.file.clone() }
    }
}

fn parse(bytes: &[u8]) -> Result<BTreeMap<EntryId, Act>, BadFile> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(BadFile::TooLong);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| BadFile::NotText)?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let written = (1..).zip(lines).filter(|(_, line)| !line.is_empty());
    let entries = written.map(|(number, line)| {
        let (act, id) = match line.strip_prefix("apply ") {
            Some(id) => (Act::Apply, id.trim_start()),
            None => (Act::Skip, line),
        };
        let id = id
            .split_once('.')
            .and_then(|(term, index)| Some(EntryId { term: term.parse().ok()?, index: index.parse().ok()? }));
        id.map(|id| (id, act)).ok_or_else(|| BadFile::Line { number, line: line.to_owned() })
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use folio_engine::disk::RealDisk;

    use super::*;
    use folio_state::{DeleteTopic, FEATURE_LEVEL, PutTopic, RaiseLevel, Topic};

    const ID: EntryId = EntryId { term: 3, index: 12 };

    fn read(text: &str) -> io::Result<SkipEntry> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), text).unwrap();
        SkipEntry::read(&RealDisk, dir.path())
    }

    #[test]
    fn the_file_names_entries_and_nothing_else() {
        let skips = read("# an accident\n3.12  # the garbage\n\n 4.1 \n").unwrap();
        assert!(skips.skips(ID) && skips.skips(EntryId { term: 4, index: 1 }));
        assert!(!skips.skips(EntryId { term: 12, index: 3 }));
        for wrong in ["3", "3.", "3.x", "3.1.2", "-3.1"] {
            let error = read(&format!("\n{wrong}")).unwrap_err().to_string();
            assert!(error.contains("skip-entry: line 2") && error.contains("3.1207"), "{error}");
        }
        assert!(read(&"#".repeat(FILE_BYTES_MAX + 1)).is_err());
        let none = SkipEntry::read(&RealDisk, tempfile::tempdir().unwrap().path()).unwrap();
        assert!(!none.skips(ID));
    }

    #[test]
    fn skip_entry_i1_a_command_that_can_be_applied_is_never_skipped() {
        let whole = Command::from(PutTopic(Topic::new("t", 8))).encode();
        let large = Command::from(PutTopic(Topic::new("t".repeat(999), 8))).encode();
        let (named, unnamed) = (read("3.12").unwrap(), read("").unwrap());
        assert!(named.command(ID, &whole).unwrap().is_some());
        assert!(named.command(ID, b"garbage").unwrap().is_none());
        assert!(named.command(ID, &large).unwrap().is_none());
        assert!(unnamed.command(ID, &whole).unwrap().is_some());
        assert!(unnamed.command(ID, &large).unwrap().is_some(), "an earlier build has applied it");
        let applied = read("apply 3.12").unwrap();
        assert!(applied.command(ID, &large).unwrap().is_some() && applied.command(ID, b"garbage").is_err());
        applied.admit(ID, &large).unwrap();
        let error = unnamed.command(ID, b"garbage").unwrap_err().to_string();
        assert!(error.contains("write 3.12 into the file /") && error.contains("/skip-entry"), "{error}");
    }

    /// Nodes of the newer build have applied it: one that skips it is another replica from then on.
    #[test]
    fn skip_entry_i1_a_command_of_a_newer_build_was_skipped_where_the_file_named_it() {
        let mut newer = Command::from(DeleteTopic { name: "t".into() }).encode();
        newer[6] = 9;
        let level = Command::from(RaiseLevel { level: FEATURE_LEVEL + 1 }).encode();
        for file in ["3.12", "apply 3.12", ""] {
            for newer in [&newer, &level] {
                let file = read(file).unwrap();
                let error = file.command(ID, newer).unwrap_err().to_string();
                assert!(error.contains("entry 3.12") && error.contains("install"), "{error}");
                assert!(!error.contains("skip-entry"), "{error}");
                assert!(file.admit(ID, newer).is_err());
            }
        }
    }

    #[test]
    fn skip_entry_i2_of_a_transition_all_commands_are_skipped_or_none() {
        let whole = || Bytes::from(Command::from(PutTopic(Topic::new("t", 8))).encode());
        let garbage = || Bytes::from_static(b"garbage");
        let (named, unnamed) = (read("3.12").unwrap(), read("").unwrap());
        assert_eq!(unnamed.commands(ID, [whole(), whole()]).unwrap().unwrap().len(), 2);
        assert!(unnamed.commands(ID, [whole(), garbage()]).is_err());
        assert!(named.commands(ID, [whole(), garbage(), whole()]).unwrap().is_none());
    }

    #[test]
    fn appends_i1_garbage_and_what_is_beyond_the_limits_does_not_enter_a_log() {
        let large = Command::from(PutTopic(Topic::new("t".repeat(999), 8))).encode();
        let (named, unnamed) = (read("3.12").unwrap(), read("").unwrap());
        for bad in [&b"garbage"[..], &large] {
            let error = unnamed.admit(ID, bad).unwrap_err().to_string();
            assert!(error.contains("3.12"), "{error}");
            named.admit(ID, bad).expect("a replica that gets the log later");
        }
        unnamed.admit(ID, &Command::from(DeleteTopic { name: "t".into() }).encode()).unwrap();
    }
}
