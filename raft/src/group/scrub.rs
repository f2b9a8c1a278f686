//! Reads snapshots, derived structures and old records from the disk now and then, slowly, so that rot is found while it can be repaired.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use folio_engine::derived::ScrubStep;
use folio_engine::log::{ReadError, Scrubbed};
use tokio::time::Instant;

use crate::config::Scrub;
use crate::host::Host;
use crate::shared::Shared;
use crate::snapshots;

/// How often a part is read.
const STEP: Duration = Duration::from_millis(250);
/// How long to wait for a damaged record to be mended before looking again.
const MEND_WAIT: Duration = Duration::from_millis(50);

/// Bytes after which it is noted how far the scrub has come, for a start to go on there.
const NOTE_EVERY_BYTES: u64 = 256 << 20;

/// Scrubs until its task is aborted.
pub(crate) async fn run(host: Host, shared: Arc<Shared>, config: Scrub) {
    if config.bytes_per_second == 0 {
        return;
    }
    let step_bytes = (config.bytes_per_second / 4).max(1);
    let log = shared.log.clone();
    // A pass that a stop cut short goes on: what it had not come to yet would wait longest.
    let mut unfinished = host.blocking(move || log.scrub_goes_on()).await.ok().flatten();
    loop {
        let began = Instant::now();
        // What is appended during the pass is for the next one.
        let upto = shared.applied_index.load(Ordering::Acquire);
        // The few snapshots first: a pass over a large log takes days.
        let mut bytes = snapshots(&host, &shared, step_bytes).await;
        bytes += derived(&host, &shared, step_bytes).await;
        let mut next = unfinished.take();
        let mut noted = next.is_some().then_some(bytes);
        loop {
            tokio::time::sleep(STEP).await;
            match step(&host, &shared, next, upto, step_bytes).await {
                Ok(done) => {
                    bytes += done.bytes;
                    next = done.next;
                    if let Some((_, position)) = next.filter(|_| done.damaged) {
                        while shared.log.is_unreadable(position) {
                            tokio::time::sleep(MEND_WAIT).await;
                        }
                    }
                    let is_over = next.is_none() && noted.is_some();
                    if is_over || bytes - noted.unwrap_or(0) >= NOTE_EVERY_BYTES {
                        noted = Some(bytes);
                        note(&host, &shared, next).await;
                    }
                    if next.is_none() {
                        break;
                    }
                }
                Err(error) => tracing::warn!(%error, "scrub interrupted"),
            }
        }
        if bytes > 0 {
            tracing::info!(
                bytes,
                seconds = began.elapsed().as_secs(),
                "all snapshots, all that is derived and the whole log were read and checked"
            );
        }
        tokio::time::sleep(config.interval.saturating_sub(began.elapsed())).await;
    }
}

/// One pass over the snapshots that this node needs; what is damaged or gone is repaired meanwhile. Returns the bytes read.
async fn snapshots(host: &Host, shared: &Arc<Shared>, step_bytes: u64) -> u64 {
    let (mut bytes, mut paused_at) = (0, 0);
    for position in snapshots::needed(shared) {
        let reading = shared.clone();
        let read = host.blocking(move || snapshots::load(&reading, position)).await;
        bytes += read.and_then(|read| read).map_or(0, |(_, file)| file.len() as u64);
        // There may be thousands, mostly small ones.
        let steps = (bytes - paused_at) / step_bytes;
        if steps > 0 {
            paused_at = bytes;
            tokio::time::sleep(STEP * u32::try_from(steps).unwrap_or(u32::MAX)).await;
        }
    }
    bytes
}

async fn note(host: &Host, shared: &Arc<Shared>, next: Option<(u64, u64)>) {
    let log = shared.log.clone();
    let noted = host.blocking(move || log.note_scrubbed(next)).await;
    if let Err(error) = noted.and_then(|noted| noted) {
        tracing::warn!(%error, "not noted how far the scrub has come");
    }
}

/// One pass over each derived structure; what is damaged is repaired meanwhile. Returns the bytes read.
async fn derived(host: &Host, shared: &Arc<Shared>, step_bytes: u64) -> u64 {
    let mut bytes = 0;
    for at in 0..shared.derived.slots().len() {
        loop {
            tokio::time::sleep(STEP).await;
            let on = shared.clone();
            let scrubbed = host.blocking(move || on.derived.slots()[at].structure().scrub(step_bytes));
            let Ok(ScrubStep { bytes: read, over }) = scrubbed.await else { break };
            bytes += read;
            if over {
                break;
            }
        }
    }
    bytes
}

async fn step(
    host: &Host,
    shared: &Arc<Shared>,
    next: Option<(u64, u64)>,
    upto: u64,
    bytes: u64,
) -> Result<Scrubbed, ReadError> {
    let log = shared.log.clone();
    let read = host.blocking(move || log.scrub(next, upto, bytes)).await;
    read.unwrap_or_else(|stopped| {
        Err(ReadError::Io { position: next.map_or(0, |next| next.1), reason: stopped.to_string() })
    })
}
