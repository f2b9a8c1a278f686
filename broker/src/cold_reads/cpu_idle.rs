//! What the machine's processors have been doing, as Linux tells it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

/// The line looked for is the first one; of the rest not even the length matters.
const LINE_BYTES_MAX: usize = 512;
/// `idle` and `iowait`, of `user nice system idle iowait irq softirq steal guest guest_nice`; the guests' time is counted
/// among the first two as well.
const IDLE: std::ops::Range<usize> = 3..5;
const COUNTED: usize = 8;

/// Time of all processors since the machine's start, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticks {
    pub(super) idle: u64,
    pub(super) all: u64,
}

/// Reads [`Ticks`].
#[derive(Default)]
pub(super) struct Processors {
    file: OnceLock<Option<File>>,
}

impl Processors {
    /// Now; `None` where the system does not tell.
    pub(super) fn read(&self) -> Option<Ticks> {
        let file = self.file.get_or_init(|| File::open("/proc/stat").ok()).as_ref()?;
        let mut line = [0; LINE_BYTES_MAX];
        let count = file.read_at(&mut line, 0).ok()?;
        parse(line.get(..count)?)
    }
}

fn parse(text: &[u8]) -> Option<Ticks> {
    let line = std::str::from_utf8(text.split(|byte| *byte == b'\n').next()?).ok()?;
    let fields = line.strip_prefix("cpu ")?.split_ascii_whitespace().take(COUNTED);
    let times = fields.map(str::parse).collect::<Result<Vec<u64>, _>>().ok()?;
    Some(Ticks { idle: times.get(IDLE)?.iter().sum(), all: times.iter().sum() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_is_what_waits_for_nothing_or_for_the_disk() {
        let text = b"cpu  10 1 20 300 4 5 6 7 90 90\ncpu0 1 2";
        assert_eq!(parse(text), Some(Ticks { idle: 304, all: 353 }));
    }

    #[test]
    fn what_is_no_such_line_tells_nothing() {
        for text in [&b""[..], b"cpu0 1 2 3 4 5", b"cpu  1 2 3", b"cpu  1 2 3 x 5 6 7 8", b"\xff\xfe"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn this_machine_tells() {
        if cfg!(target_os = "linux") {
            let processors = Processors::default();
            let first = processors.read().expect("a line");
            assert!(processors.read().is_some_and(|second| second.all >= first.all));
        }
    }
}
