//! The thread that the group's tasks run on, apart from the threads that serve clients.
//!
//! A record passes through many small tasks: openraft's core, a stream to each peer, the state machine. On one thread they
//! hand it on without waking anybody; and however busy clients keep the other threads, none of them waits behind a
//! request. The log's writer has a thread of its own, in `engine`.
//!
//! Not here: what the tasks do, see `folio_raft::group`.

use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use folio_engine::disk::Disk;
use folio_raft::config::GroupConfig;
use folio_raft::group::{Group, Hooks};
use tokio::sync::oneshot;

/// Ends the thread, and what still runs on it, when it is dropped.
pub(crate) struct GroupThread {
    _end: oneshot::Sender<()>,
}

/// Starts a group on a thread of its own.
pub(crate) async fn start(
    config: GroupConfig,
    disk: Arc<dyn Disk>,
    hooks: Arc<dyn Hooks>,
) -> Result<(Group, GroupThread)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the group's runtime")?;
    let (started, group) = oneshot::channel();
    let (end, ended) = oneshot::channel::<()>();
    let run = move || {
        runtime.block_on(async {
            if started.send(Group::start(config, disk, hooks).await).is_ok() {
                // An error says that the other end was dropped, which is what is waited for.
                let _ = ended.await;
            }
        });
        runtime.shutdown_background();
    };
    thread::Builder::new().name("folio-raft".into()).spawn(run).context("cannot start the group's thread")?;
    let group = group.await.context("the group's thread panicked at its start")??;
    Ok((group, GroupThread { _end: end }))
}
