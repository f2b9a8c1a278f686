//! How much memory the machine, or the control group that this process runs in, can give.
//!
//! Asked once, at the start. What cannot be read counts as no limit.

use std::fs;
use std::sync::LazyLock;

use super::budget::MEMORY_BYTES_MIN;

/// Of what is there at the start, clients get one of this many parts: logs, caches and peers need the rest.
const CLIENTS_PART: u64 = 4;
/// More is of no use: four times what 4,096 outstanding messages of 64 KiB hold.
const DEFAULT_MAX: u64 = 1 << 30;

/// `limits.memory` where it is not configured.
pub(super) fn default_memory_bytes() -> usize {
    static BYTES: LazyLock<usize> = LazyLock::new(|| share_of(available_bytes()));
    *BYTES
}

fn share_of(available: u64) -> usize {
    (available / CLIENTS_PART).clamp(MEMORY_BYTES_MIN as u64, DEFAULT_MAX) as usize
}

fn available_bytes() -> u64 {
    let read = |path: &str| fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| meminfo(&text, "MemAvailable:"));
    let own = read("/proc/self/cgroup").and_then(|text| own_group(&text)).unwrap_or_default();
    let groups = [format!("/sys/fs/cgroup{own}/memory.max"), "/sys/fs/cgroup/memory.max".to_owned()];
    let old = "/sys/fs/cgroup/memory/memory.limit_in_bytes".to_owned();
    let groups = groups.into_iter().chain([old]);
    let groups = groups.filter_map(|path| read(&path)?.trim().parse().ok());
    groups.chain(machine).min().unwrap_or(u64::MAX)
}

/// A value of `/proc/meminfo`, in bytes.
fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The path of the process's control group, version 2.
fn own_group(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(path.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_with_512_mib_and_a_large_one_get_what_suits_them() {
        assert_eq!(share_of(400 << 20), 100 << 20);
        assert_eq!(share_of(1 << 20), MEMORY_BYTES_MIN);
        assert_eq!(share_of(u64::MAX), 1 << 30);
    }

    #[test]
    fn the_systems_files_are_read_as_they_are() {
        let text = "MemTotal:       24683752 kB\nMemAvailable:   23625984 kB\n";
        assert_eq!(meminfo(text, "MemAvailable:"), Some(23_625_984 * 1024));
        assert_eq!(meminfo("MemTotal: 1 kB", "MemAvailable:"), None);
        assert_eq!(own_group("0::/user.slice\n").as_deref(), Some("/user.slice"));
        assert_eq!(own_group("0::/\n").as_deref(), Some(""));
        assert_eq!(own_group("1:cpu:/x\n"), None);
    }
}
