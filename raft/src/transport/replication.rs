//! The replication stream to one peer: appends are written as they come, answers come back in order.
//!
//! One task writes, the stream that openraft polls reads. Up to [`APPENDS_IN_FLIGHT`] appends are on their
//! way; an answer that takes longer than [`ANSWER_TIMEOUT`] ends the stream, so that a hung follower blocks
//! neither replication to it for ever nor retention.
//!
//! A stream begins with what the peer has acknowledged to this leader before, and each heartbeat says it: by that a peer that
//! came back with an older copy of its disk finds out (`founding.I5`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::wire::{AppendAnswer, AppendHead, Frame, FrameReader, FrameWriter, Kind, invalid};
use crate::codec::{self, WireLogId};
use crate::types::{Content, TypeConfig};

/// Appends on their way at once; openraft's receiving side pipelines as many.
const APPENDS_IN_FLIGHT: usize = 64;
/// How long one append may go unanswered.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The pieces of an append frame's body: its head, then the records as they are in the log.
pub(crate) fn append_parts(
    request: &AppendEntriesRequest<TypeConfig>,
    acknowledged: Option<WireLogId>,
) -> io::Result<Vec<Bytes>> {
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
pub(crate) struct Replication {
    acknowledged: Arc<Acknowledged>,
    /// The leader's, once it has sent something.
    term: Arc<AtomicU64>,
    reader: FrameReader,
    /// One element for each append that was, or is about to be, written.
    written: mpsc::Receiver<()>,
    writer: JoinHandle<io::Result<()>>,
}

impl Drop for Replication {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

impl Replication {
    /// Starts writing what `input` yields.
    pub(crate) fn start<S>(
        reader: FrameReader,
        mut writer: FrameWriter,
        mut input: S,
        acknowledged: Arc<Acknowledged>,
    ) -> Replication
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let (note, written) = mpsc::channel(APPENDS_IN_FLIGHT);
        let (term, before) = (Arc::new(AtomicU64::new(0)), acknowledged.clone());
        let of = term.clone();
        let writer = tokio::spawn(async move {
            let mut id = 0;
            while let Some(request) = input.next().await {
                id += 1;
                of.store(request.vote.leader_id.term, Ordering::Release);
                let told = if id == 1 { before.in_term(request.vote.leader_id.term) } else { None };
                let parts = append_parts(&request, told)?;
                if note.send(()).await.is_err() {
                    return Ok(());
                }
                writer.write(Kind::Append, id, parts).await?;
            }
            Ok(())
        });
        Replication { acknowledged, term, reader, written, writer }
    }

    /// The answer to the next append, in order; `None` once the input has ended and all are answered.
    pub(crate) async fn next(&mut self) -> io::Result<Option<AppendAnswer>> {
        if self.written.recv().await.is_none() {
            return match (&mut self.writer).await {
                Ok(result) => result.map(|()| None),
                Err(error) => Err(io::Error::other(error)),
            };
        }
        let frame =
            timeout(ANSWER_TIMEOUT, self.reader.next()).await.map_err(|_| io::ErrorKind::TimedOut)??;
        match frame {
            Some(Frame { kind: Kind::Answer, body, .. }) => {
                let answer = codec::decode(&body).map_err(io::Error::other)?;
                if let AppendAnswer::Matching(Some(id)) = answer {
                    self.acknowledged.note(self.term.load(Ordering::Acquire), id);
                }
                Ok(Some(answer))
            }
            Some(Frame { kind: Kind::Failure, body, .. }) => {
                Err(io::Error::other(String::from_utf8_lossy(&body).into_owned()))
            }
            Some(other) => Err(invalid(format!("a {:?} frame on a replication stream", other.kind))),
            None => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }
}
