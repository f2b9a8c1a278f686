//! Ends connections on which nothing goes on: half a frame, an answer that is not read, or nothing at all.
//!
//! What is counted is looks in a row that find no change, not time: a stall of this node, however long, is one look. A peer
//! that stalls for ten seconds loses nothing; whatever is closed here is opened again by the next request on it.
//!
//! - `peer.I10`: a frame that has begun is complete, or its connection is closed, after [`STUCK_LOOKS`] looks; so is one that is
//!   being written; a connection on which no frame comes is closed after [`IDLE_LOOKS`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Half a minute: a large frame takes a fraction of a second on a local network.
const STUCK_LOOKS: u32 = 6;
/// Ten minutes: a group without messages has nothing to replicate for hours, and opens the next connection by itself.
const IDLE_LOOKS: u32 = 120;

/// How far one direction of a connection is. Written by its reader or writer alone.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    frames: AtomicU64,
    busy: AtomicBool,
}

impl Progress {
    /// A frame is complete.
    pub(crate) fn done(&self) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.busy.store(false, Ordering::Relaxed);
    }

    /// Whether a part of a frame is under way.
    pub(crate) fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
    }
}

/// What the last look has seen of a direction.
struct Seen {
    progress: Arc<Progress>,
    last: (u64, bool),
    unchanged: u32,
}

impl Seen {
    fn new(progress: Arc<Progress>) -> Seen {
        Seen { progress, last: (0, false), unchanged: 0 }
    }

    /// Looks in a row that found no change, this one included; and whether a frame is under way.
    fn look(&mut self) -> (u32, bool) {
        let now = (self.progress.frames.load(Ordering::Relaxed), self.progress.busy.load(Ordering::Relaxed));
        self.unchanged = if now == self.last { self.unchanged + 1 } else { 0 };
        self.last = now;
        (self.unchanged, now.1)
    }
}

/// Waits until the connection is stuck or idle; says which.
pub(crate) async fn watch(reader: Arc<Progress>, writer: Arc<Progress>) -> io::Error {
    let (mut reader, mut writer) = (Seen::new(reader), Seen::new(writer));
    loop {
        sleep(LOOK_INTERVAL).await;
        let why = match (reader.look(), writer.look()) {
            ((STUCK_LOOKS.., true), _) => "peer.I10: half a frame, and no more of it",
            (_, (STUCK_LOOKS.., true)) => "peer.I10: what is written is not read",
            ((IDLE_LOOKS.., false), _) => "peer.I10: idle",
            _ => continue,
        };
        return io::Error::new(io::ErrorKind::TimedOut, why);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    async fn ended_after(reader: &Arc<Progress>, writer: &Arc<Progress>) -> (u64, String) {
        let begun = Instant::now();
        let why = watch(reader.clone(), writer.clone()).await;
        (begun.elapsed().as_secs(), why.to_string())
    }

    /// Nothing ended a connection after its hello: half a frame of 64 MiB was kept for as long as its sender lived.
    #[tokio::test(start_paused = true)]
    async fn peer_i10_half_a_frame_and_an_answer_that_is_not_read_were_kept_for_ever() {
        let (stuck, free) = (Arc::<Progress>::default(), Arc::<Progress>::default());
        stuck.set_busy(true);
        let (seconds, why) = ended_after(&stuck, &free).await;
        assert!((30..=40).contains(&seconds) && why.contains("half a frame"), "{seconds}: {why}");
        let (seconds, why) = ended_after(&free, &stuck).await;
        assert!((30..=40).contains(&seconds) && why.contains("not read"), "{seconds}: {why}");
        let (seconds, why) = ended_after(&free, &free).await;
        assert!((600..=610).contains(&seconds) && why.contains("idle"), "{seconds}: {why}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_of_ten_seconds_ends_nothing() {
        let (reader, writer) = (Arc::<Progress>::default(), Arc::<Progress>::default());
        let (r, w) = (reader.clone(), writer.clone());
        let busy = tokio::spawn(async move {
            for _ in 0..100 {
                [&r, &w].iter().for_each(|progress| progress.set_busy(true));
                sleep(Duration::from_secs(10)).await;
                [&r, &w].iter().for_each(|progress| progress.done());
            }
        });
        let (seconds, why) = ended_after(&reader, &writer).await;
        assert!(seconds > 1_000, "{seconds}: {why}");
        busy.await.unwrap();
    }
}
