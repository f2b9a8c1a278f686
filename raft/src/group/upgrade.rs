//! Raises the group's feature level once every member runs a build that supports a higher one.
//!
//! The leader asks all members now and then, learners too, for the levels that their builds support, as long as its own
//! build supports more than the group uses. A member that does not answer may be of an older build: then the level stays.
//! So during a rolling upgrade the group speaks in the forms of the older build, and the upgrade can be taken back until the
//! last node has the new one. From then on no node of an older build takes part (`features.I2`): it is turned away with a
//! sentence that says what to install.

use std::sync::Weak;
use std::time::Duration;

use folio_state::{FEATURE_LEVEL, RaiseLevel};
use tokio::time::sleep;

use super::{Group, Inner};
use crate::codec;
use crate::group::log_summary::LogSummary;
use crate::proposal::ProposeError;
use crate::status::Role;
use crate::transport::wire::Kind;

/// How often the leader looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a member may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs until its task is aborted.
pub(super) async fn run(inner: Weak<Inner>) {
    loop {
        sleep(LOOK_INTERVAL).await;
        let Some(group) = inner.upgrade().map(Group) else { return };
        if let Err(error) = group.raise_level().await {
            tracing::debug!(%error, "the feature level stays for now");
        }
        #[cfg(feature = "next-level")]
        group.count().await;
    }
}

impl Group {
    async fn raise_level(&self) -> Result<(), ProposeError> {
        let status = self.status();
        let level = self.0.shared.level.get();
        if status.role != Role::Leader || level >= FEATURE_LEVEL || !self.0.shared.is_settled(status.term) {
            return Ok(());
        }
        let others = status.members.iter().filter(|(id, _)| **id != status.node_id);
        let asked = others.clone().map(|(id, address)| self.ask_level(*id, &address.raft));
        let answers = futures_util::future::join_all(asked).await;
        let Some(levels) = answers.iter().copied().collect::<Option<Vec<u16>>>() else {
            let silent: Vec<u64> =
                others.zip(answers).filter(|(_, level)| level.is_none()).map(|((id, _), _)| *id).collect();
            tracing::debug!(?silent, level, "the feature level stays: not all members answer");
            return Ok(());
        };
        let supported = levels.into_iter().fold(FEATURE_LEVEL, u16::min);
        // One that was added meanwhile has not been asked.
        if supported <= level || self.status().members != status.members {
            return Ok(());
        }
        self.execute_in(Some(status.term), RaiseLevel { level: supported }.into()).await?;
        tracing::info!(
            from = level,
            to = supported,
            "feature level raised: every member's build supports it"
        );
        Ok(())
    }

    /// The highest level that a member's build supports, if it answers.
    pub(super) async fn ask_level(&self, id: u64, address: &str) -> Option<u16> {
        let requests = self.0.connections.requests(id, address, "upgrade");
        let answer = requests.request(Kind::Summary, Vec::new(), ANSWER_TIMEOUT).await.ok()?;
        Some(codec::decode::<LogSummary>(&answer).ok()?.supports)
    }

    /// Proposes what only the next level has.
    #[cfg(feature = "next-level")]
    async fn count(&self) {
        let next = folio_state::sections::next_level::Count(self.state().counted() + 1);
        let number = next.0;
        if self.status().role == Role::Leader && self.execute(next).await.is_ok() {
            tracing::info!(number, "a command of the next feature level is applied");
        }
    }
}
