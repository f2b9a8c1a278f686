//! The task that accepts callers of a Raft port; it ends with its last handle.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::JoinHandle;

struct Task(Mutex<Option<JoinHandle<()>>>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.lock().take().iter().for_each(JoinHandle::abort);
    }
}

/// See the module; clones are the same task.
#[derive(Clone)]
pub(crate) struct Accepting(Arc<Task>);

impl Accepting {
    pub(crate) fn new(task: JoinHandle<()>) -> Accepting {
        Accepting(Arc::new(Task(Mutex::new(Some(task)))))
    }

    /// Accepts no caller any more; the port is free then.
    pub(crate) async fn close(&self) {
        let task = self.0.0.lock().take();
        if let Some(task) = task {
            task.abort();
            // The listener is dropped with the task. An error says that it was aborted, or has panicked.
            drop(task.await);
        }
    }

    /// The same, soon.
    pub(crate) fn abort(&self) {
        self.0.0.lock().iter().for_each(JoinHandle::abort);
    }
}
