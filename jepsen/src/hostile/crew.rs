//! The threads that attackers run on: their own, so that the good client never waits behind an attacker's work.
//!
//! They yield to everything else on the machine. Where the attackers' machine is the nodes' one, what an attack costs is
//! what the nodes spend on it, not what it takes to make it.

use std::future::Future;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use tokio::runtime::{Builder, Runtime};

/// Threads for all attackers.
const THREADS: usize = 2;
/// How they are called.
pub(crate) const THREAD_NAME: &str = "attacker";
/// How far they yield.
const NICE: i32 = 10;

/// A runtime of its own.
pub(crate) struct Crew(Option<Runtime>);

impl Crew {
    /// Starts the threads.
    ///
    /// # Errors
    /// When there can be none.
    pub(crate) fn start() -> Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(THREADS).thread_name(THREAD_NAME).enable_all().on_thread_start(|| {
            // The kernel takes a thread's number for this. Without it the figures are worse, and nothing else.
            let _ = setpriority_process(Some(rustix::thread::gettid()), NICE);
        });
        Ok(Self(Some(builder.build().context("start the attackers' threads")?)))
    }

    /// Runs this on the attackers' threads to its end.
    ///
    /// # Errors
    /// When it panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        let runtime = self.0.as_ref().context("the attackers' threads have ended")?;
        runtime.spawn(work).await.context("an attack panicked")
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        // Waiting for the threads is not allowed within another runtime.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Lets this process open as many files as it may: an attack with a thousand connections to each node needs them.
///
/// # Errors
/// When the system refuses.
pub(crate) fn raise_open_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).context("raise the limit of open files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_of_an_attack_is_told_and_ends_nothing_else() {
        let crew = Crew::start().unwrap();
        let failed = crew.run(async { panic!("on purpose") }).await.map(|(): ()| ());
        assert!(failed.unwrap_err().to_string().contains("panicked"));
        assert_eq!(crew.run(async { 7 }).await.unwrap(), 7);
    }
}
