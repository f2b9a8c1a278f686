//! Brings derived structures up that lack records: those that were deleted, are new, or had to refuse some. Syncs those
//! that hold so much in memory that they cannot wait for the next checkpoint.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::derived::Slot;
use crate::host::Host;
use crate::shared::Shared;

/// Log bytes brought to a structure before the thread is given back.
const STEP_BYTES: usize = 4 << 20;
/// How long to wait for what hinders: a damaged record, a full disk, a record that is just being applied.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How often the same trouble is logged.
const SAY_INTERVAL: Duration = Duration::from_secs(60);

/// Brings structures up until its task is aborted.
pub(crate) async fn run(host: Host, shared: Arc<Shared>) {
    let mut said = None::<Instant>;
    loop {
        let mut hindered = false;
        for at in 0..shared.derived.slots().len() {
            let began = Instant::now();
            let mut steps = 0u64;
            while let Some(moved) = step(&host, &shared, at).await {
                steps += 1;
                match moved {
                    Ok(true) => continue,
                    Ok(false) => hindered = true,
                    Err(error) => {
                        hindered = true;
                        if said.is_none_or(|said| said.elapsed() >= SAY_INTERVAL) {
                            said = Some(Instant::now());
                            let structure = shared.derived.slots()[at].structure().name();
                            tracing::warn!(structure, error, "not brought up, trying again");
                        }
                    }
                }
                break;
            }
            if steps > 1 && shared.derived.slots()[at].is_up() {
                let structure = shared.derived.slots()[at].structure().name();
                tracing::info!(structure, seconds = began.elapsed().as_secs(), "built up to what is applied");
            }
        }
        if hindered {
            sleep(RETRY_AFTER).await;
        } else {
            shared.derived.wanted().await;
        }
    }
}

/// One step for a structure: none when it needs no more, else whether it came further.
async fn step(host: &Host, shared: &Arc<Shared>, at: usize) -> Option<Result<bool, String>> {
    if !shared.derived.slots()[at].needs_work() {
        return None;
    }
    let on = shared.clone();
    let stepped = host.blocking(move || {
        let slot: &Slot = &on.derived.slots()[at];
        slot.bring_up(&on.log, on.applied_index.load(Ordering::Acquire), STEP_BYTES)
    });
    Some(match stepped.await {
        Ok(Ok(moved)) => Ok(moved),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    })
}
