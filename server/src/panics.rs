//! What a panic does to a node: it ends the process, at once.
//!
//! A panic says that something is not as the code believes. tokio keeps a task's panic to itself, and a thread's ends that
//! thread alone: such a node would go on sending heartbeats without its applier, its log writer or a lock's owner. Ended at
//! once it is a node that died, which the group survives and whoever started the process repairs.
//!
//! What the panic was is told first, and that may never end: a log that nobody reads holds up whoever writes to it. A thread
//! that was started for it ends the process then.
//!
//! - `panics.I1`: a process that runs a node does not outlive a panic in any of its threads or tasks by more than
//!   [`LAST_WORDS`].
//!
//! Not here: a group inside another program, see `folio_raft::group`.

use std::backtrace::Backtrace;
use std::io;
use std::panic;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How long a panic may take to be told.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Whether a thread has panicked.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// From now on a panic is logged and ends this process by SIGABRT.
pub fn end_the_process() -> io::Result<()> {
    // Before it is needed: a process that panics may be out of threads or memory.
    let end = thread::Builder::new().name("folio-end".into()).spawn(end_after_last_words)?;
    let end = end.thread().clone();
    panic::set_hook(Box::new(move |panic| {
        PANICKED.store(true, Ordering::Release);
        end.unpark();
        let thread = thread::current();
        tracing::error!(
            thread = thread.name(),
            "panics.I1: {panic}; this process ends, as if it had been killed"
        );
        tracing::error!("{}", Backtrace::force_capture());
        process::abort();
    }));
    Ok(())
}

fn end_after_last_words() {
    while !PANICKED.load(Ordering::Acquire) {
        thread::park();
    }
    thread::sleep(LAST_WORDS);
    process::abort();
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command, ExitStatus, Stdio};
    use std::time::Instant;

    use super::*;

    /// Says in which part of a process the child of the test is to panic.
    const WHERE: &str = "FOLIO_TEST_PANIC_IN";
    const SIGABRT: i32 = 6;
    /// What a pipe holds, but for a page.
    const PIPE_BYTES: u64 = 15 * 4096;

    #[test]
    #[ignore = "the child of the test below"]
    fn a_process_that_panics() {
        crate::logging::start(None).expect("logging starts");
        end_the_process().expect("a thread");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let part = std::env::var(WHERE).expect("the test says where");
        let panics = || panic!("a bug in a {}", std::env::var(WHERE).unwrap_or_default());
        match part.as_str() {
            "task" => drop(runtime.block_on(runtime.spawn(async move { panics() }))),
            "blocking thread" => drop(runtime.block_on(runtime.spawn_blocking(panics))),
            "thread while the log is full" => {
                thread::spawn(|| tracing::error!("{}", "x".repeat(1 << 20)));
                // The test says when that line fills what nobody reads.
                std::io::stdin().read_exact(&mut [0]).expect("the test says when");
                drop(thread::spawn(panics).join());
            }
            "destructor of a panicking thread" => drop(
                thread::spawn(|| {
                    let _again = PanicsAgain;
                    panic!("a bug in a destructor of a panicking thread");
                })
                .join(),
            ),
            _ => drop(std::thread::spawn(panics).join()),
        }
        println!("this process goes on");
    }

    struct PanicsAgain;

    impl Drop for PanicsAgain {
        fn drop(&mut self) {
            panic!("a second bug");
        }
    }

    fn child(part: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.args(["a_process_that_panics", "--ignored", "--nocapture"]).env(WHERE, part);
        command
    }

    fn wait(child: &mut Child) -> Option<ExitStatus> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait().expect("it can be waited for") {
                return Some(status);
            }
            thread::sleep(Duration::from_millis(10));
        }
        child.kill().and_then(|()| child.wait()).expect("it can be killed");
        None
    }

    /// A thread that writes to a pipe which nobody reads has the log: the one that panicked waited for it without end, and the
    /// others went on.
    #[test]
    fn panics_i1_a_panic_ends_the_process_though_nobody_reads_its_log() {
        let mut child = child("thread while the log is full");
        child.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = child.spawn().expect("this program starts again");
        let (mut input, log) = (child.stdin.take().expect("piped"), child.stderr.take().expect("piped"));
        let deadline = Instant::now() + Duration::from_secs(60);
        while rustix::io::ioctl_fionread(&log).expect("a pipe") < PIPE_BYTES {
            assert!(Instant::now() < deadline, "the log does not fill the pipe");
            thread::sleep(Duration::from_millis(10));
        }
        input.write_all(b"x").expect("it reads");
        let status = wait(&mut child).expect("panics.I1: the process goes on");
        assert_eq!(status.signal(), Some(SIGABRT));
    }

    /// Before: the panic was printed, and the process went on without that task or thread.
    #[test]
    fn panics_i1_a_panic_in_any_task_or_thread_ends_the_process() {
        for part in ["task", "blocking thread", "thread", "destructor of a panicking thread"] {
            let child = child(part).output().expect("this program starts again");
            let said = String::from_utf8_lossy(&child.stderr);
            assert_eq!(child.status.signal(), Some(SIGABRT), "a panic in a {part}: {said}");
            assert!(said.contains(&format!("a bug in a {part}")), "the log names the panic: {said}");
            assert!(!String::from_utf8_lossy(&child.stdout).contains("goes on"));
        }
    }
}
