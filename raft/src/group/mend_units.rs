//! Mends damaged units of this node's consume queues from its own log.
//!
//! No peer is asked: units are derived. The part of the log that is searched may be damaged itself; its record is then
//! mended first, see [`super::mend`], and the search begins anew.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use folio_engine::queues::{MendError, UnitPlace};
use tokio::sync::Notify;

use crate::host::Host;
use crate::shared::Shared;

/// How long to wait before looking again for a message that was not found.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Log bytes searched before the thread is given back.
const STEP_BYTES: usize = 8 << 20;

/// Mends what is found damaged, until its task is aborted.
pub(crate) async fn run(host: Host, shared: Arc<Shared>) {
    let found = Arc::new(Notify::new());
    let notify = found.clone();
    shared.queues.on_damage(Box::new(move || notify.notify_one()));
    loop {
        let damages = shared.queues.damages();
        if damages.is_empty() {
            found.notified().await;
            continue;
        }
        let (mut mended, mut left) = (0, 0);
        for place in damages {
            match mend(&host, &shared, &place).await {
                Ok(units) => mended += units,
                Err(error) => {
                    left += 1;
                    let UnitPlace { topic, queue, offset } = place;
                    tracing::warn!(%topic, queue, offset, %error, "damaged units not mended yet");
                }
            }
        }
        if mended > 0 {
            // Without it, a power cut brings the damage back; it would be found again.
            let queues = shared.queues.clone();
            let synced = host.blocking(move || queues.sync()).await;
            if let Err(error) = synced.and_then(|synced| synced.map_err(std::io::Error::other)) {
                tracing::warn!(%error, "mended units are not durable yet");
            }
        }
        if left > 0 {
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}

/// Returns how many units were rewritten.
async fn mend(host: &Host, shared: &Arc<Shared>, place: &UnitPlace) -> Result<usize, MendError> {
    let (on, at) = (shared.clone(), place.clone());
    let Some(mut mending) = blocking(host, move || on.queues.begin_mend(&on.log, &at)).await? else {
        return Ok(0);
    };
    loop {
        let on = shared.clone();
        let (searched, done) = blocking(host, move || {
            let applied = on.applied_index.load(Ordering::Acquire);
            let done = mending.step(&on.log, applied, STEP_BYTES)?;
            Ok((mending, done))
        })
        .await?;
        mending = searched;
        if done {
            break;
        }
    }
    let on = shared.clone();
    let units = blocking(host, move || on.queues.mend(mending)).await?;
    shared.rot.mended_units.fetch_add(units as u64, Ordering::Relaxed);
    let UnitPlace { topic, queue, offset } = place;
    tracing::warn!(%topic, queue, offset, units, "damaged units mended");
    Ok(units)
}

async fn blocking<T, W>(host: &Host, work: W) -> Result<T, MendError>
where
    T: Send + 'static,
    W: FnOnce() -> Result<T, MendError> + Send + 'static,
{
    host.blocking(work).await.unwrap_or_else(|stopped| Err(MendError::Stopped(stopped.to_string())))
}
