//! The pace at which a leader stores again what retention waits for: looked for now and then, some in each record, with a pause between records.
//! Each driver that carries messages forward says what it carries ([`Carries`]).

use std::fmt::Display;
use std::time::Duration;

use tokio::time::sleep;

use super::Parts;
use crate::group::tasks;
use crate::log_rate_limiter::LogRateLimiter;

/// Messages of one record, and their bytes.
pub(super) const RECORD_MESSAGES: usize = 1000;
pub(super) const RECORD_BYTES: usize = 512 << 10;
/// How often is seen whether something is wanted.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Pause between records: at most 16 MiB a second.
const PAUSE: Duration = Duration::from_millis(32);

/// What one driver carries.
pub(super) trait Carries: Send + Sync + 'static {
    /// What the task is called.
    const NAME: &'static str;
    /// What is said where it fails.
    const TROUBLE: &'static str;
    /// Why it fails.
    type Trouble: Display + Send;

    /// Stores some again; whether there were any. Called while this node leads.
    fn carry(&self) -> impl Future<Output = Result<bool, Self::Trouble>> + Send;
}

/// Starts the task, which ends when the group stops.
pub(super) fn start<C: Carries>(parts: &Parts, carries: C) {
    let (shared, fence) = (parts.shared.clone(), parts.fence.clone());
    let mut stopping = shared.stopping.subscribe();
    tasks::spawn(&shared, C::NAME, async move {
        let troubles = LogRateLimiter::default();
        let work = async {
            loop {
                sleep(LOOK_INTERVAL).await;
                while fence.leads() {
                    match carries.carry().await {
                        Ok(true) => sleep(PAUSE).await,
                        Ok(false) => break,
                        Err(trouble) => {
                            if troubles.admit().is_some() {
                                tracing::warn!(%trouble, "{}", C::TROUBLE);
                            }
                            break;
                        }
                    }
                }
            }
        };
        tokio::select! {
            () = work => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    });
}
