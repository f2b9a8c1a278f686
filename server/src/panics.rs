//! What a panic does to a node: it ends the process, at once.
//!
//! A panic says that something is not as the code believes. tokio keeps a task's panic to itself, and a thread's ends that
//! thread alone: such a node would go on sending heartbeats without its applier, its log writer or a lock's owner. Ended at
//! once it is a node that died, which the group survives and whoever started the process repairs.
//!
//! - `panics.I1`: a process that runs a node does not outlive a panic in any of its threads or tasks.
//!
//! Not here: a group inside another program, see `folio_raft::group`.

use std::backtrace::Backtrace;
use std::panic;
use std::process;

/// From now on a panic is logged and ends this process by SIGABRT.
pub(crate) fn end_the_process() {
    panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        tracing::error!(
            thread = thread.name(),
            "panics.I1: {panic}; this process ends, as if it had been killed\n{}",
            Backtrace::force_capture()
        );
        process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    /// Says in which part of a process the child of the test is to panic.
    const WHERE: &str = "FOLIO_TEST_PANIC_IN";
    const SIGABRT: i32 = 6;

    #[test]
    #[ignore = "the child of the test below"]
    fn a_process_that_panics() {
        crate::logging::start(None).expect("logging starts");
        end_the_process();
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let part = std::env::var(WHERE).expect("the test says where");
        let panics = || panic!("a bug in a {}", std::env::var(WHERE).unwrap_or_default());
        match part.as_str() {
            "task" => drop(runtime.block_on(runtime.spawn(async move { panics() }))),
            "blocking thread" => drop(runtime.block_on(runtime.spawn_blocking(panics))),
            _ => drop(std::thread::spawn(panics).join()),
        }
        println!("this process goes on");
    }

    /// Before: the panic was printed, and the process went on without that task or thread.
    #[test]
    fn panics_i1_a_panic_in_any_task_or_thread_ends_the_process() {
        let this = std::env::current_exe().expect("this program has a path");
        for part in ["task", "blocking thread", "thread"] {
            let child = Command::new(&this)
                .args(["a_process_that_panics", "--ignored", "--nocapture"])
                .env(WHERE, part)
                .output()
                .expect("this program starts again");
            let said = String::from_utf8_lossy(&child.stderr);
            assert_eq!(child.status.signal(), Some(SIGABRT), "a panic in a {part}: {said}");
            assert!(said.contains(&format!("a bug in a {part}")), "the log names the panic: {said}");
            assert!(!String::from_utf8_lossy(&child.stdout).contains("goes on"));
        }
    }
}
