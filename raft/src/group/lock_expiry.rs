//! Takes locks of dead clients out of the replicated table.
//!
//! The leader looks now and then for locks whose time is over and proposes to forget them, some at a time. It looks at a
//! copy, where nothing waits for it. What it names is looked at once more where it is applied, by the command's reading of the
//! lease clock (`locks.I2`): a lock that was renewed meanwhile stays. A leader that is replaced proposes nothing: the command
//! enters the log in its term or not at all, as a reading of the lease clock must (`lease_clock.I1`).

use std::sync::Weak;
use std::time::Duration;

use folio_state::ExpireLocks;
use tokio::time::sleep;

use super::{Group, Inner};
use crate::proposal::ProposeError;
use crate::status::Role;

/// How often the leader looks: a small part of the minute that a lock lives.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Names in one command: some thousand locks, whose removal holds up what is applied for a millisecond or two.
const COMMAND_BYTES_MAX: usize = 256 << 10;

/// Runs until its task is aborted.
pub(super) async fn run(inner: Weak<Inner>) {
    loop {
        sleep(LOOK_INTERVAL).await;
        let Some(group) = inner.upgrade().map(Group) else { return };
        loop {
            match group.expire_locks().await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::debug!(%error, "locks of dead clients stay for now");
                    break;
                }
            }
        }
    }
}

impl Group {
    /// Proposes to forget some locks that are over; whether there were any.
    async fn expire_locks(&self) -> Result<bool, ProposeError> {
        let (term, leads) = {
            let status = self.0.status.borrow();
            (status.term, status.role == Role::Leader)
        };
        if !leads || !self.0.shared.is_settled(term) {
            return Ok(false);
        }
        let locks = self.0.shared.state.read().locks().clone();
        let now_ms = self.lease_now_ms();
        let looked = self.0.host.blocking(move || locks.over(now_ms, COMMAND_BYTES_MAX)).await;
        let locks = looked.map_err(|error| ProposeError::Stopped(error.to_string()))?;
        if locks.is_empty() {
            return Ok(false);
        }
        let now_ms = self.lease_stamp_ms(term);
        self.execute_in(Some(term), ExpireLocks { now_ms, locks }.into()).await?;
        Ok(true)
    }
}
