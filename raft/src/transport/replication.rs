//! The replication stream to one peer: appends are written as they come, answers come back in order.
//!
//! Up to [`APPENDS_IN_FLIGHT`] appends are on their way; five seconds without an answer end the stream, so that a
//! hung follower blocks neither replication to it for ever nor retention.
//!
//! A stream begins with what the peer has acknowledged to this leader before, and each heartbeat says it: by that a peer that
//! came back with an older copy of its disk finds out (`founding.I5`).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use openraft::base::BoxFuture;
use openraft::raft::AppendEntriesRequest;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep, timeout_at};

use super::frames::{FrameReader, FrameWriter};
use super::wire::{AppendAnswer, AppendHead, Frame, Kind, invalid};
use crate::codec::{self, WireLogId};
use crate::shared::Shared;
use crate::types::{Content, TypeConfig};

/// Appends on their way at once; openraft's receiving side pipelines as many.
const APPENDS_IN_FLIGHT: usize = 64;
/// How often is looked whether appends go unanswered.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Looks in a row that may find appends, and no answer since the look before.
const SILENT_LOOKS: u32 = 5;
/// How long an append without records waits for one with records: a few times what one takes on a local network, and far
/// less than a heartbeat.
const COMMIT_PATIENCE: Duration = Duration::from_millis(1);

/// The pieces of an append frame's body: its head, then the records as they are in the log.
pub(crate) fn append_parts(request: &Append, acknowledged: Option<WireLogId>) -> io::Result<Vec<Bytes>> {
    let head = codec::encode(&AppendHead {
        vote: (&request.vote).into(),
        prev: request.prev_log_id.as_ref().map(Into::into),
        commit: request.leader_commit.as_ref().map(Into::into),
        acknowledged,
    });
    let mut prefix = BytesMut::with_capacity(4 + head.len());
    prefix.put_u32_le(head.len() as u32);
    prefix.put_slice(&head);
    let mut parts = Vec::with_capacity(1 + request.entries.len());
    parts.push(prefix.freeze());
    for entry in &request.entries {
        match &entry.content {
            Content::Stored(record) => parts.push(record.frame().clone()),
            Content::New(_) => {
                return Err(invalid(format!("{entry} is not in the log and cannot be replicated")));
            }
        }
    }
    Ok(parts)
}

type Append = AppendEntriesRequest<TypeConfig>;

/// What one peer has acknowledged, for as long as this node runs.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged(Mutex<Option<(u64, WireLogId)>>);

impl Acknowledged {
    /// The last entry it acknowledged in this term.
    pub(crate) fn in_term(&self, term: u64) -> Option<WireLogId> {
        self.0.lock().filter(|(of, _)| *of == term).map(|(_, id)| id)
    }

    fn note(&self, term: u64, id: WireLogId) {
        let mut last = self.0.lock();
        if last.is_none_or(|last| last < (term, id)) {
            *last = Some((term, id));
        }
    }
}

/// One stream of appends over one connection.
///
/// Writing and reading are two halves of one task, the one that polls [`Replication::next`]: an append on its way costs
/// no switch to another.
pub(crate) struct Replication {
    acknowledged: Arc<Acknowledged>,
    shared: Arc<Shared>,
    /// The leader's, once it has sent something.
    term: Arc<AtomicU64>,
    reader: FrameReader,
    /// Until the input has ended and everything is written.
    writing: Option<BoxFuture<'static, io::Result<()>>>,
    unanswered: Arc<Unanswered>,
    /// Looks that found appends unanswered, since the last answer.
    silent: u32,
    look: Pin<Box<Sleep>>,
}

/// Room for appends without an answer.
struct Unanswered(Semaphore);

impl Unanswered {
    fn are_there(&self) -> bool {
        self.0.available_permits() < APPENDS_IN_FLIGHT
    }

    /// Waits for room, and takes it.
    async fn add(&self) -> io::Result<()> {
        self.0.acquire().await.map_err(io::Error::other)?.forget();
        Ok(())
    }

    fn remove(&self) {
        self.0.add_permits(1);
    }
}

impl Replication {
    /// Writes what `input` yields, once [`Replication::next`] is polled.
    pub(crate) fn start<S>(
        reader: FrameReader,
        writer: FrameWriter,
        input: S,
        acknowledged: Arc<Acknowledged>,
        shared: Arc<Shared>,
    ) -> Replication
    where
        S: Stream<Item = Append> + Send + Unpin + 'static,
    {
        let unanswered = Arc::new(Unanswered(Semaphore::new(APPENDS_IN_FLIGHT)));
        let term = Arc::new(AtomicU64::new(0));
        let write = Write {
            unanswered: unanswered.clone(),
            term: term.clone(),
            acknowledged: acknowledged.clone(),
            shared: shared.clone(),
        };
        let writing: BoxFuture<'static, _> = Box::pin(write.run(writer, input));
        let look = Box::pin(sleep(LOOK_INTERVAL));
        let writing = Some(writing);
        Replication { acknowledged, shared, term, reader, writing, unanswered, silent: 0, look }
    }

    /// The answer to the next append, in order; `None` once the input has ended and all are answered.
    ///
    /// Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> io::Result<Option<AppendAnswer>> {
        let Replication { acknowledged, shared, term, reader, writing, unanswered, silent, look } = self;
        while writing.is_some() || unanswered.are_there() {
            tokio::select! {
                biased;
                frame = reader.next() => {
                    unanswered.remove();
                    *silent = 0;
                    let answer = answer_of(frame?)?;
                    // peer.I5
                    shared.check(&answer)?;
                    if let AppendAnswer::Matching(Some(id)) = answer {
                        acknowledged.note(term.load(Ordering::Acquire), id);
                    }
                    return Ok(Some(answer));
                }
                written = ended(writing) => {
                    *writing = None;
                    written?;
                }
                () = look.as_mut() => {
                    look.as_mut().reset(Instant::now() + LOOK_INTERVAL);
                    *silent = if unanswered.are_there() { *silent + 1 } else { 0 };
                    if *silent > SILENT_LOOKS {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
            }
        }
        Ok(None)
    }
}

/// How writing ended; waits for ever where it ended before.
async fn ended(writing: &mut Option<BoxFuture<'static, io::Result<()>>>) -> io::Result<()> {
    match writing {
        Some(writing) => writing.await,
        None => std::future::pending().await,
    }
}

fn answer_of(frame: Option<Frame>) -> io::Result<AppendAnswer> {
    match frame {
        Some(Frame { kind: Kind::Answer, body, .. }) => codec::decode(&body).map_err(io::Error::other),
        Some(Frame { kind: Kind::Failure, body, .. }) => {
            Err(io::Error::other(String::from_utf8_lossy(&body).into_owned()))
        }
        Some(other) => Err(invalid(format!("a {:?} frame on a replication stream", other.kind))),
        None => Err(io::ErrorKind::ConnectionReset.into()),
    }
}

/// The writing half.
struct Write {
    unanswered: Arc<Unanswered>,
    term: Arc<AtomicU64>,
    acknowledged: Arc<Acknowledged>,
    shared: Arc<Shared>,
}

impl Write {
    /// Writes the appends of `input` until it ends.
    async fn run<S>(self, mut writer: FrameWriter, input: S) -> io::Result<()>
    where
        S: Stream<Item = Append> + Send + Unpin + 'static,
    {
        let mut input = input.fuse();
        let (mut id, mut next) = (0, input.next().await);
        while let Some(request) = next.take() {
            let (request, later) = with_records(request, &mut input).await;
            self.check(&request)?;
            id += 1;
            let term = request.vote.leader_id.term;
            self.term.store(term, Ordering::Release);
            let told = if id == 1 { self.acknowledged.in_term(term) } else { None };
            let parts = append_parts(&request, told)?;
            self.unanswered.add().await?;
            writer.write(Kind::Append, id, parts).await?;
            next = match later {
                Some(later) => Some(later),
                None => input.next().await,
            };
        }
        Ok(())
    }

    /// Ends a stream whose next entries were purged since it began: openraft would send empty appends on it without end, and
    /// not the snapshot that the peer needs.
    fn check(&self, request: &Append) -> io::Result<()> {
        let prev = request.prev_log_id.as_ref().map(|id| id.index);
        let purged = || self.shared.log.state().purged.map(|id| id.index);
        if request.entries.is_empty() && prev < purged() {
            return Err(invalid(format!("what follows entry {prev:?} was purged")));
        }
        Ok(())
    }
}

/// An append that only tells how far is committed waits a little for one with records, which tells it too and is sent
/// instead. Gives what is to be sent, and what came and is to be sent next.
async fn with_records<S>(mut request: Append, input: &mut S) -> (Append, Option<Append>)
where
    S: Stream<Item = Append> + Send + Unpin,
{
    let until = Instant::now() + COMMIT_PATIENCE;
    while request.entries.is_empty() {
        match timeout_at(until, input.next()).await {
            Ok(Some(later)) if later.vote == request.vote => request = later,
            Ok(later) => return (request, later),
            Err(_) => break,
        }
    }
    (request, None)
}

#[cfg(test)]
mod tests {
    use folio_engine::disk::sim::SimDisk;
    use folio_engine::record::EntryId;
    use futures_util::stream;
    use openraft::entry::RaftEntry;
    use openraft::storage::{RaftLogStorage, RaftLogStorageExt};

    use super::*;
    use crate::storage_suite::open_on;
    use crate::types::{LogEntry, Vote, log_id};

    /// A follower of which a snapshot was to be sent got empty appends instead, for as long as its connection held.
    #[tokio::test]
    async fn a_stream_of_which_the_next_entries_were_purged_never_ended() {
        let (mut store, _machine) = open_on(&SimDisk::new());
        let at = |index| log_id(EntryId { term: 2, index });
        store.blocking_append((0..5).map(|index| LogEntry::new_blank(at(index)))).await.unwrap();
        store.purge(at(3)).await.unwrap();
        let start = |prev| {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let (reader, writer) = tokio::io::split(ours);
            let append = Append {
                vote: Vote::new_committed(2, 1),
                prev_log_id: Some(at(prev)),
                entries: Vec::new(),
                leader_commit: None,
            };
            let (reader, writer) = (FrameReader::new(Box::new(reader)), FrameWriter::new(Box::new(writer)));
            let shared = store.shared().clone();
            (Replication::start(reader, writer, stream::iter([append]), Arc::default(), shared), theirs)
        };
        let (mut stale, _peer) = start(1);
        let ended = tokio::time::timeout(Duration::from_secs(20), stale.next()).await.unwrap();
        assert!(ended.is_err());
        let (mut sound, _peer) = start(3);
        let answered = tokio::time::timeout(Duration::from_millis(50), sound.next()).await;
        assert!(answered.is_err(), "it waits for its answer");
    }
}
