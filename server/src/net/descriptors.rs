//! The files that this process may have open, and how many of them connections may take.
//!
//! A connection that cannot be accepted is tried again by its client. A log segment that cannot be opened ends the node. So
//! connections get at most half, and none of the last [`RESERVED`].
//!
//! Consume queues bound themselves (`engine/src/queues/files.rs`: three eighths at the very most). [`RESERVED`] is for the rest: log
//! segments, snapshots, checkpoints, notes, peers, listening sockets, and connections that are only told that they are
//! refused.
//!
//! - `descriptors.I1`: a connection is kept only if the process may open [`RESERVED`] more files beside it, as of the
//!   last second.

use std::fs;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit, setrlimit};

/// Files that connections leave to everything else.
pub const RESERVED: usize = 128;
/// Open files are counted this often at most: the system is asked for the list of them.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// Where the system lists them.
const OPEN_FILES: &str = "/proc/self/fd";

/// Raises the limit of open files as far as allowed, and says what it is.
pub fn raise() -> usize {
    let mut raised = getrlimit(Resource::Nofile);
    raised.current = raised.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("the limit of open files stays as it is: {error}");
    }
    limit()
}

fn limit() -> usize {
    getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// Connections that leave enough open files to the rest.
pub fn connections_max(limit: usize) -> usize {
    (limit.saturating_sub(RESERVED) / 2).max(1)
}

/// The open files of this process.
#[derive(Debug)]
pub(super) struct Descriptors {
    limit: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    counted: Option<Instant>,
    /// Those that were open then, and connections that were accepted since.
    files: usize,
}

impl Descriptors {
    pub(super) fn new() -> Self {
        Self { limit: limit(), open: Mutex::default() }
    }

    /// The limit.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether a connection that was just accepted leaves enough open files to the rest (`descriptors.I1`).
    pub(super) fn has_room(&self) -> bool {
        let mut open = self.open.lock();
        if !open.refresh() {
            open.files += 1;
        }
        leaves_reserve(open.files, self.limit)
    }

    /// Files that are open, as of the last second.
    pub(super) fn open(&self) -> usize {
        let mut open = self.open.lock();
        open.refresh();
        open.files
    }
}

impl Open {
    /// Counts again if that is due; says whether it was.
    fn refresh(&mut self) -> bool {
        let is_due = self.counted.is_none_or(|counted| counted.elapsed() >= COUNT_EVERY);
        if is_due {
            *self = Open { counted: Some(Instant::now()), files: count() };
        }
        is_due
    }
}

fn leaves_reserve(open: usize, limit: usize) -> bool {
    open.saturating_add(RESERVED) <= limit
}

/// Where the system does not say, the limit of connections has to do.
fn count() -> usize {
    fs::read_dir(OPEN_FILES).map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i1_connections_leave_files_to_the_log() {
        assert_eq!(connections_max(1_024), 448);
        assert_eq!(connections_max(64), 1);
        assert!(leaves_reserve(1_024 - RESERVED, 1_024));
        assert!(!leaves_reserve(1_024 - RESERVED + 1, 1_024));
        assert!(leaves_reserve(5, usize::MAX));
    }

    #[test]
    fn files_that_are_open_are_counted() {
        let before = count();
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").expect("it is there")).collect();
        // Other tests of this process open and close files meanwhile.
        assert!(count() + 25 > before + files.len(), "{before} before, {} now", count());
    }

    #[test]
    fn connections_accepted_since_the_last_count_count() {
        let descriptors = Descriptors { limit: count() + RESERVED + 100, open: Mutex::default() };
        let kept = (0..10_000).take_while(|_| descriptors.has_room()).count();
        assert!((1..10_000).contains(&kept), "{kept}");
    }
}
