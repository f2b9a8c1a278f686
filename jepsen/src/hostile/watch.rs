//! What the machine tells of a process: its memory, its sockets, the size of its printed log, what its threads take of the
//! processors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;

/// How often nodes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

const MINUTE: Duration = Duration::from_secs(60);

/// A process at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// Memory of its own that is resident; pages of files do not count.
    pub memory_bytes: u64,
    /// Open sockets.
    pub sockets: u64,
    /// Bytes of its printed log.
    pub log_bytes: u64,
}

/// Where a node can be looked at.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    /// Its id in the group.
    pub(crate) node: u64,
    /// Its process.
    pub(crate) pid: u32,
    /// Its printed log.
    pub(crate) log: PathBuf,
}

impl Process {
    /// The process now; zeros for one that has ended.
    #[must_use]
    pub(crate) fn read(&self) -> Reading {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        Reading {
            memory_bytes: memory_bytes(&status).unwrap_or(0),
            sockets: sockets(&PathBuf::from(format!("/proc/{}/fd", self.pid))),
            log_bytes: std::fs::metadata(&self.log).map_or(0, |file| file.len()),
        }
    }
}

/// Milliseconds of a processor that the threads of a process have used so far, by their names.
pub(crate) type Used = BTreeMap<String, u64>;

/// What all threads of a process that live have used.
#[must_use]
pub(crate) fn used(pid: u32) -> Used {
    let mut used = Used::new();
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return used };
    for thread in threads.flatten() {
        let read = |file: &str| std::fs::read_to_string(thread.path().join(file)).unwrap_or_default();
        if let Some(ms) = used_ms(&read("schedstat")) {
            *used.entry(read("comm").trim_end().to_owned()).or_default() += ms;
        }
    }
    used
}

/// What a thread has used, out of its `schedstat`: nanoseconds, and two numbers more.
fn used_ms(schedstat: &str) -> Option<u64> {
    let nanos: u64 = schedstat.split_ascii_whitespace().next()?.parse().ok()?;
    Some(nanos / 1_000_000)
}

/// What was used since.
#[must_use]
pub(crate) fn used_since(before: &Used, now: Used) -> Used {
    let since = |(name, ms): (String, u64)| {
        let before = before.get(&name).copied().unwrap_or(0);
        (name, ms.saturating_sub(before))
    };
    now.into_iter().map(since).collect()
}

/// The resident memory that is no page of a file, out of `/proc/<pid>/status`.
fn memory_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}

/// The most memory that this process itself ever took.
#[must_use]
pub(crate) fn own_peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}

fn sockets(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let is_socket = |link: PathBuf| link.to_string_lossy().starts_with("socket:");
    entries.flatten().filter(|entry| std::fs::read_link(entry.path()).is_ok_and(is_socket)).count() as u64
}

/// Looks at all nodes again and again, on a thread of its own; and at how long that thread itself is kept waiting.
pub(crate) struct Watch {
    peaks: Arc<Mutex<Peaks>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The most of everything in one stretch.
#[derive(Debug, Clone)]
pub(crate) struct Peaks {
    begun: Instant,
    /// Memory of each process, in their order.
    pub(crate) memory_bytes: Vec<u64>,
    /// The same after each minute, not the most of it.
    pub(crate) minutes: Vec<Vec<u64>>,
    /// The longest time by which the watching thread woke up too late: a stall of the machine.
    pub(crate) stall: Duration,
}

impl Watch {
    /// Begins to look.
    #[must_use]
    pub(crate) fn start(processes: Vec<Process>) -> Self {
        let peaks = Arc::new(Mutex::new(Peaks::of(processes.len())));
        let stop = Arc::new(AtomicBool::new(false));
        let (to, until) = (Arc::clone(&peaks), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                let asleep = Instant::now();
                std::thread::sleep(LOOK_EVERY);
                let late = asleep.elapsed().saturating_sub(LOOK_EVERY);
                let now = processes.iter().map(|process| process.read().memory_bytes);
                let now: Vec<u64> = now.collect();
                let mut peaks = to.lock();
                peaks.note_minute(Instant::now(), &now);
                peaks.stall = peaks.stall.max(late);
                for (peak, now) in peaks.memory_bytes.iter_mut().zip(now) {
                    *peak = now.max(*peak);
                }
            }
        });
        Self { peaks, stop, thread: Some(thread) }
    }

    /// Ends a stretch: its peaks.
    #[must_use]
    pub(crate) fn take(&self) -> Peaks {
        let mut peaks = self.peaks.lock();
        let fresh = Peaks::of(peaks.memory_bytes.len());
        std::mem::replace(&mut *peaks, fresh)
    }
}

impl Peaks {
    fn of(processes: usize) -> Self {
        let (begun, minutes) = (Instant::now(), Vec::new());
        Self { begun, memory_bytes: vec![0; processes], minutes, stall: Duration::ZERO }
    }

    fn note_minute(&mut self, at: Instant, memory_bytes: &[u64]) {
        let next = self.begun + MINUTE * (self.minutes.len() as u32 + 1);
        if at >= next {
            self.minutes.push(memory_bytes.to_vec());
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot panic, and ends within a tenth of a second.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_sockets() {
        let process = Process { node: 1, pid: std::process::id(), log: PathBuf::from("/proc/self/status") };
        let before = process.read();
        assert!(before.memory_bytes > 0);
        let listeners: Vec<_> =
            (0..20).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let after = process.read();
        // Other tests of this process open and close sockets meanwhile.
        assert!(after.sockets >= 20, "{before:?} {after:?}");
        drop(listeners);
        assert!(own_peak_bytes() > 0);
    }

    #[test]
    fn memory_is_noted_after_each_minute() {
        let mut peaks = Peaks::of(1);
        for seconds in 0..200 {
            peaks.note_minute(peaks.begun + Duration::from_secs(seconds), &[seconds]);
        }
        assert_eq!(peaks.minutes, [[60], [120], [180]]);
    }

    #[test]
    fn threads_have_used_what_the_machine_says() {
        assert_eq!(used_ms("2500000 77 3\n"), Some(2));
        assert_eq!(used_ms(""), None);
        let own = used(std::process::id());
        assert!(!own.is_empty());
        assert!(used_since(&own, own.clone()).values().all(|ms| *ms == 0));
        let more = own.iter().map(|(name, ms)| (name.clone(), ms + 7)).collect();
        assert!(used_since(&own, more).values().all(|ms| *ms == 7));
    }

    #[test]
    fn memory_of_files_does_not_count() {
        let status = "Name:\tfolio\nVmRSS:\t   90 kB\nRssAnon:\t   12 kB\nRssFile:\t 78 kB\n";
        assert_eq!(memory_bytes(status), Some(12 << 10));
        assert_eq!(memory_bytes("Name:\tfolio\n"), None);
    }

    #[test]
    fn a_watch_sees_a_peak_between_two_looks_of_others() {
        let process = Process { node: 1, pid: std::process::id(), log: PathBuf::new() };
        let watch = Watch::start(vec![process]);
        let started = Instant::now();
        loop {
            let peaks = watch.take();
            if peaks.memory_bytes[0] > 0 {
                break;
            }
            assert!(started.elapsed() < Duration::from_secs(20), "never looked");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
