//! Keeps the route of a load fresh.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::shared::Shared;
use super::target::Directory;

/// How often the route is asked for without a reason to.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// How often at most: a flood of errors must not become one of questions.
const REFRESH_PAUSE: Duration = Duration::from_millis(50);

/// Takes the route over as the NameServers know it, until the task is aborted.
pub(super) async fn keep_route(shared: Arc<Shared>, mut directory: Directory) {
    loop {
        let _ = timeout(REFRESH_EVERY, shared.refresh_asked()).await;
        // An answer without a leader is an election under way: the last known one is as good as any.
        if let Ok(Some(targets)) = directory.lookup().await {
            shared.heard(targets);
        }
        sleep(REFRESH_PAUSE).await;
    }
}
