//! Repairs damaged parts of this node's derived structures from its own log.
//!
//! No peer is asked: they are derived. The part of the log that is searched may be damaged itself; its record is then
//! mended first, see [`super::mend`], and the search begins anew.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use folio_engine::derived::{DerivedError, RepairStep};
use tokio::sync::Notify;

use crate::host::Host;
use crate::shared::Shared;

/// How long to wait before looking again for what was not found.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Log bytes searched before the thread is given back.
const STEP_BYTES: usize = 8 << 20;

/// Repairs what is found damaged, until its task is aborted.
pub(crate) async fn run(host: Host, shared: Arc<Shared>) {
    let found = Arc::new(Notify::new());
    for slot in shared.derived.slots() {
        let notify = found.clone();
        slot.structure().on_damage(Box::new(move || notify.notify_one()));
    }
    loop {
        if shared.derived.damaged() == 0 {
            found.notified().await;
            continue;
        }
        let mut left = false;
        for at in 0..shared.derived.slots().len() {
            left |= round(&host, &shared, at).await;
        }
        if left {
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}

/// Tries every damaged part of a structure that is known. Whether some could not be repaired.
async fn round(host: &Host, shared: &Arc<Shared>, at: usize) -> bool {
    let structure = shared.derived.slots()[at].structure();
    let (mut repaired, mut left) = (0, false);
    while structure.damaged() > 0 {
        match step(host, shared, at).await {
            Ok(Ok(RepairStep::RoundOver)) => break,
            Ok(Ok(RepairStep::Searching)) => {}
            Ok(Ok(RepairStep::Repaired(units))) => {
                repaired += units;
                shared.rot.mended_units.fetch_add(units as u64, Ordering::Relaxed);
            }
            Ok(Err(error)) => {
                left = true;
                tracing::warn!(structure = structure.name(), %error, "damage not repaired yet");
            }
            Err(error) => {
                tracing::warn!(structure = structure.name(), %error, "repair interrupted");
                left = true;
                break;
            }
        }
    }
    if repaired > 0 {
        // Without it, a power cut brings the damage back; it would be found again.
        let on = shared.clone();
        let synced = host.blocking(move || on.derived.slots()[at].structure().sync()).await;
        if let Err(error) = synced.and_then(|synced| synced.map_err(io::Error::other)) {
            tracing::warn!(structure = structure.name(), %error, "what was repaired is not durable yet");
        }
    }
    left
}

async fn step(host: &Host, shared: &Arc<Shared>, at: usize) -> io::Result<Result<RepairStep, DerivedError>> {
    let on = shared.clone();
    let repairing = host.blocking(move || {
        let applied = on.applied_index.load(Ordering::Acquire);
        on.derived.slots()[at].structure().repair(&on.log, applied, STEP_BYTES)
    });
    repairing.await
}
