//! The group's tasks, of which none may be missing: a panic in one of them ends this node's part in the group.
//!
//! tokio keeps a task's panic to itself. A node that has lost its applier, its listener or the task that proposes would go on
//! sending heartbeats, and serve nobody. The binary ends the whole process at the first panic (`server/src/panics.rs`); this
//! is the same rule for a program that embeds a group.
//!
//! - `tasks.I1`: a group of which a task has panicked says that it has stopped, and takes no part any more.

use std::any::Any;
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::task::JoinHandle;

use crate::shared::Shared;

/// Starts a task of the group.
pub(crate) fn spawn(
    shared: &Arc<Shared>,
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    let shared = shared.clone();
    tokio::spawn(async move {
        let work = async {
            task.await;
            Ok(())
        };
        let _ = guarded(&shared, name, work).await;
    })
}

/// Runs what belongs to a task that somebody else started. A panic is its error.
pub(crate) async fn guarded<T>(
    shared: &Shared,
    name: &'static str,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    caught(name, work, |reason| shared.fail(reason)).await
}

/// The same for what is no single group's: `fail` is told of a panic.
pub(crate) async fn caught<T>(
    name: &'static str,
    work: impl Future<Output = io::Result<T>>,
    fail: impl FnOnce(&str),
) -> io::Result<T> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(done) => done,
        Err(panic) => {
            let reason = format!("{name} panicked: {}", message_of(&*panic));
            fail(&reason);
            Err(io::Error::other(reason))
        }
    }
}

fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
