//! The thread that a group's tasks run on, apart from the threads that serve clients. Each group of a node has its own.
//!
//! A record passes through many small tasks: openraft's core, a stream to each peer, the state machine. On one thread they
//! hand it on without waking anybody; and however busy clients keep the other threads, none of them waits behind a
//! request. The log's writer has a thread of its own, in `engine`.
//!
//! The first group's thread accepts the connections to the Raft port of the node, too. With one group, the sockets of its
//! peers are so on the thread that uses them.
//!
//! Not here: what the tasks do, see `folio_raft::group`.

use std::thread;

use anyhow::{Context, Result};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Ends the thread, and what still runs on it, when it is dropped.
pub(crate) struct GroupThread {
    handle: Handle,
    _end: oneshot::Sender<()>,
}

impl GroupThread {
    /// A thread without tasks.
    pub(crate) fn start() -> Result<GroupThread> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start the group's runtime")?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let run = move || {
            // An error says that the other end was dropped, which is what is waited for.
            let _ = runtime.block_on(ended);
            runtime.shutdown_background();
        };
        thread::Builder::new()
            .name("folio-raft".into())
            .spawn(run)
            .context("cannot start the group's thread")?;
        Ok(GroupThread { handle, _end: end })
    }

    /// Runs a task there.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.handle.spawn(task)
    }
}
