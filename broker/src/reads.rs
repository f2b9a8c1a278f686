//! The memory of answers that are read from the disk, until the queues of their clients have them.
//!
//! What a client asks for may be in files. Its bytes are no answer that waits for a client yet, and would be in no share: the
//! pulls that one connection may have in flight ask for two gigabytes. So the bytes are taken of the share `reads` first. A
//! read that gets none waits, in the order in which reads came. It is answered later, that is all.
//!
//! A connection has only some of its reads there at a time, and none while it has much to read already: the reads of a client
//! that does not read wait for that client, and keep none of another one waiting.
//!
//! - `disk_reads.I1`: what is read from the disk for clients is no more than the share `reads`, one answer apart that is larger;
//!   a connection has [`READS_MAX`] of such reads at a time, and begins none while no more of its requests are read.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Reads of one connection at a time: while one waits for the disk another one finds its messages in memory.
pub const READS_MAX: usize = 4;
/// What is counted.
const PAGE_BYTES: usize = 4096;

/// The share of all reads.
#[derive(Debug)]
pub struct Reads {
    pages: Arc<Semaphore>,
    pages_max: usize,
}

/// The memory of one read; dropped, it is given back.
#[derive(Debug)]
pub struct ReadMemory {
    /// `None` if nothing bounded the reads any more, which is never so.
    _pages: Option<OwnedSemaphorePermit>,
}

/// One of the reads that a connection may have; dropped, the next one has its turn.
#[derive(Debug)]
pub struct ReadTurn {
    _turn: OwnedSemaphorePermit,
}

impl ReadTurn {
    /// A turn of a connection's own semaphore.
    pub fn new(turn: OwnedSemaphorePermit) -> Self {
        Self { _turn: turn }
    }
}

impl Reads {
    /// Of so many bytes; none is taken.
    pub fn new(bytes: usize) -> Self {
        let pages_max = (bytes / PAGE_BYTES).min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        Self { pages: Arc::new(Semaphore::new(pages_max)), pages_max }
    }

    /// Memory for an answer of so many bytes, if it is left and nobody waits for it. One larger than the share takes all of it.
    pub fn try_take(&self, bytes: usize) -> Option<ReadMemory> {
        let pages = self.pages.clone().try_acquire_many_owned(self.pages_of(bytes)).ok()?;
        Some(ReadMemory { _pages: Some(pages) })
    }

    /// The same once it is left.
    pub async fn take(&self, bytes: usize) -> ReadMemory {
        ReadMemory { _pages: self.pages.clone().acquire_many_owned(self.pages_of(bytes)).await.ok() }
    }

    fn pages_of(&self, bytes: usize) -> u32 {
        bytes.div_ceil(PAGE_BYTES).clamp(1, self.pages_max) as u32
    }

    /// Bytes taken.
    pub fn bytes(&self) -> usize {
        (self.pages_max - self.pages.available_permits()) * PAGE_BYTES
    }

    /// The most that may be.
    pub fn bytes_max(&self) -> usize {
        self.pages_max * PAGE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;

    async fn waits<T>(taking: impl Future<Output = T>) -> bool {
        timeout(Duration::from_millis(10), taking).await.is_err()
    }

    /// 512 pulls of 4 MiB each were read into memory that no share covered.
    #[tokio::test(start_paused = true)]
    async fn i1_all_reads_together_hold_no_more_than_their_share_and_have_it_in_turn() {
        let reads = Arc::new(Reads::new(4 << 20));
        let mut tasks = JoinSet::new();
        for number in 0..512 {
            let reads = reads.clone();
            tasks.spawn(async move {
                let _memory = reads.take((1 + number % 6) << 20).await;
                assert!(reads.bytes() <= reads.bytes_max());
                tokio::time::sleep(Duration::from_millis(10)).await;
            });
        }
        while tasks.join_next().await.transpose().expect("no panic").is_some() {}
        let memory = reads.try_take(3 << 20).expect("all is left");
        assert!(waits(reads.take(2 << 20)).await);
        drop(memory);
        assert_eq!(reads.bytes(), 0);
    }
}
