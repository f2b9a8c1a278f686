//! Reading a queue from one offset to its end, or some messages of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;
use folio_protocol::header::{
    GetMaxOffsetHeader, GetMinOffsetHeader, Header, OffsetResponseHeader, PullMessageResponseHeader,
};
use folio_protocol::names::TOOLS_GROUP;
use tokio::time::sleep;

use super::stored::StoredMessage;
use super::target::{PATIENCE, Target};
use crate::client::Client;
use crate::pull::pull_header;
use crate::status::for_group;

/// Pause before a node that has nothing there yet is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Messages of one pull at most.
const BATCH: i32 = 32;

/// Which messages of a topic are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    /// The queue.
    pub(super) queue: u32,
    /// The first offset; the queue's first one if there is none.
    pub(super) from: Option<u64>,
    /// How many at most.
    pub(super) max: u64,
}

/// A queue that is read.
pub(super) struct Walk {
    client: Client,
    group: String,
    topic: String,
    queue: i32,
    /// The offset that is read next.
    next: u64,
    /// Where it ends.
    end: u64,
}

/// The first offset of a queue and the one after its last; both 0 where there is no such topic.
pub(super) async fn bounds(client: &mut Client, group: &str, topic: &str, queue: u32) -> Result<(u64, u64)> {
    let (topic, queue_id) = (topic.into(), queue.cast_signed());
    let min = GetMinOffsetHeader { topic, queue_id };
    let max = GetMaxOffsetHeader { topic: min.topic.clone(), queue_id, committed: true };
    let first = Frame::request(RequestCode::GetMinOffset, &min, Bytes::new());
    let end = Frame::request(RequestCode::GetMaxOffset, &max, Bytes::new());
    let mut offsets = [0; 2];
    for (offset, request) in offsets.iter_mut().zip([first, end]) {
        let answer = call(client, group, request).await?;
        *offset = OffsetResponseHeader::from_ext(&client.accept(answer)?.ext)?.offset;
    }
    let [first, end] = offsets.map(|offset| u64::try_from(offset).unwrap_or(0));
    Ok((first, end))
}

async fn call(client: &mut Client, group: &str, mut request: Frame) -> Result<Frame> {
    for_group(&mut request, Some(group));
    client.call(request, PATIENCE).await
}

impl Walk {
    /// Begins at the start of the range.
    pub(super) async fn begin(target: &Target, group: &str, topic: &str, range: &Range) -> Result<Walk> {
        let mut client = target.connect().await?;
        let (first, end) = bounds(&mut client, group, topic, range.queue).await?;
        let next = range.from.unwrap_or(first).max(first);
        let end = end.min(next.saturating_add(range.max));
        let (group, topic, queue) = (group.to_owned(), topic.to_owned(), range.queue.cast_signed());
        Ok(Walk { client, group, topic, queue, next, end })
    }

    /// The offset that is read next.
    pub(super) fn offset(&self) -> u64 {
        self.next
    }

    /// The group of the cluster.
    pub(super) fn group(&self) -> &str {
        &self.group
    }

    /// Messages that are left, if none of them is gone.
    pub(super) fn left(&self) -> u64 {
        self.end.saturating_sub(self.next)
    }

    /// All messages that are left.
    pub(super) async fn rest(mut self) -> Result<Vec<StoredMessage>> {
        let mut found = Vec::new();
        while let Some(messages) = self.next().await? {
            found.extend(messages);
        }
        Ok(found)
    }

    /// The next messages; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<StoredMessage>>> {
        let next = self.pull().await;
        next.with_context(|| {
            format!("group {}, topic {}: reading ended at offset {}", self.group, self.topic, self.next)
        })
    }

    async fn pull(&mut self) -> Result<Option<Vec<StoredMessage>>> {
        let begun = Instant::now();
        while self.next < self.end {
            if begun.elapsed() > PATIENCE {
                bail!(
                    "the node that was asked has no message there, and there are some up to offset {}",
                    self.end
                );
            }
            let max = BATCH.min(i32::try_from(self.left()).unwrap_or(BATCH));
            let offset = i64::try_from(self.next).context("an offset beyond all")?;
            let header =
                pull_header(TOOLS_GROUP.into(), self.topic.as_str().into(), self.queue, (offset, max));
            let request = Frame::request(RequestCode::PullMessage, &header, Bytes::new());
            let answer = call(&mut self.client, &self.group, request).await?;
            match ResponseCode::from_code(answer.code) {
                Some(ResponseCode::Success) => {
                    let messages = StoredMessage::all(&answer.body)?;
                    let Some(last) = messages.last() else { bail!("an answer without messages") };
                    self.next = last.offset + 1;
                    return Ok(Some(messages));
                }
                Some(ResponseCode::PullRetryImmediately | ResponseCode::PullOffsetMoved) => {
                    let header = PullMessageResponseHeader::from_ext(&answer.ext)?;
                    let next = u64::try_from(header.next_begin_offset).unwrap_or(0);
                    if next > self.next {
                        // Retention dropped some meanwhile.
                        self.next = next;
                    } else {
                        sleep(RETRY_PAUSE).await;
                    }
                }
                // A follower that is behind.
                Some(ResponseCode::PullNotFound) => sleep(RETRY_PAUSE).await,
                _ => drop(self.client.accept(answer)?),
            }
        }
        Ok(None)
    }

    /// Sends a request on the connection that reads; an error response is an error.
    pub(super) async fn ask(&mut self, request: Frame) -> Result<Frame> {
        let answer = call(&mut self.client, &self.group, request).await?;
        self.client.accept(answer)
    }
}
