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
/// How long to wait for a record that is just being applied.
const APPLY_WAIT: Duration = Duration::from_millis(50);
/// How long to wait for what hinders: a damaged record, a full disk.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often the same trouble is logged.
const SAY_INTERVAL: Duration = Duration::from_secs(60);

/// What takes longer is logged when it is done.
const LONG: Duration = Duration::from_secs(1);

/// Brings structures up until its task is aborted; they take turns.
pub(crate) async fn run(host: Host, shared: Arc<Shared>) {
    let slots = shared.derived.slots();
    let (mut said, mut behind) = (None::<Instant>, vec![None::<Instant>; slots.len()]);
    loop {
        let (mut moved, mut wait) = (false, None);
        for (at, slot) in slots.iter().enumerate() {
            if !slot.is_up() {
                behind[at].get_or_insert_with(Instant::now);
            }
            match step(&host, &shared, at).await {
                None => {}
                Some(Ok(true)) => moved = true,
                Some(Ok(false)) => wait = wait.max(Some(APPLY_WAIT)),
                Some(Err(error)) => {
                    wait = Some(RETRY_AFTER);
                    if said.is_none_or(|said| said.elapsed() >= SAY_INTERVAL) {
                        said = Some(Instant::now());
                        tracing::warn!(
                            structure = slot.structure().name(),
                            error,
                            "not brought up, trying again"
                        );
                    }
                }
            }
            if slot.is_up()
                && let Some(since) = behind[at].take()
                && since.elapsed() >= LONG
            {
                let (structure, seconds) = (slot.structure().name(), since.elapsed().as_secs());
                tracing::info!(structure, seconds, "built up to what is applied");
            }
        }
        match wait {
            _ if moved => {}
            Some(wait) => sleep(wait).await,
            None => shared.derived.wanted().await,
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
