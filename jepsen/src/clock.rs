//! The library that moves one process's clock: finds or builds it, and sets how far.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};

/// What cargo calls it.
const LIBRARY: &str = "libfolio_clock.so";

/// The library, found or built once; the error in words.
static FOUND: LazyLock<std::result::Result<PathBuf, String>> =
    LazyLock::new(|| find().map_err(|error| format!("{error:#}")));

/// Where the library is.
///
/// # Errors
/// When it is not beside this executable and cargo cannot build it.
pub fn library() -> std::result::Result<PathBuf, String> {
    (*FOUND).clone()
}

fn find() -> Result<PathBuf> {
    let own = std::env::current_exe().context("find this executable")?;
    // A test's executable lies one folder deeper, in target/<profile>/deps.
    let profile = own.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
    let profile = profile.context("this executable lies in a folder")?;
    let beside = profile.join(LIBRARY);
    if beside.is_file() {
        return Ok(beside);
    }
    build(profile)?;
    ensure!(beside.is_file(), "cargo built no {}", beside.display());
    Ok(beside)
}

fn build(profile: &Path) -> Result<()> {
    let workspace =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate lies in a workspace")?;
    let target = profile.parent().context("the profile's folder lies in a target folder")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace).args(["build", "--quiet", "-p", "folio-clock", "--target-dir"]).arg(target);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().context("run cargo")?;
    ensure!(status.success(), "cargo build of folio-clock ended with {status}");
    Ok(())
}

/// A process's clock: the file its library maps.
#[derive(Debug)]
pub struct Clock {
    file: PathBuf,
    library: PathBuf,
}

impl Clock {
    /// A clock that is right, its file at `file`.
    ///
    /// # Errors
    /// When the file cannot be written or there is no library.
    pub fn create(file: PathBuf) -> Result<Self> {
        let library = library().map_err(anyhow::Error::msg)?;
        std::fs::write(&file, 0_i64.to_ne_bytes()).with_context(|| format!("write {}", file.display()))?;
        Ok(Self { file, library })
    }

    /// What the process must be started with.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, OsString); 2] {
        [("LD_PRELOAD", self.library.clone().into()), ("FOLIO_CLOCK", self.file.clone().into())]
    }

    /// Moves the clock so far from the right time, from now on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set(&self, by_ms: i64) -> Result<()> {
        let nanos = by_ms.saturating_mul(1_000_000);
        let file = OpenOptions::new().write(true).open(&self.file).context("open a clock's file")?;
        // In place and at once: the process has it mapped.
        file.write_all_at(&nanos.to_ne_bytes(), 0).context("write a clock's file")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(clock: &Clock) -> i64 {
        let output = Command::new("date").arg("+%s").envs(clock.environment()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
    }

    #[test]
    fn a_process_sees_the_moved_clock_and_this_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let clock = match Clock::create(dir.path().join("clock")) {
            Ok(clock) => clock,
            Err(error) => {
                eprintln!("skipped: the clock shim is missing: {error:#}");
                return;
            }
        };
        let here =
            || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
        let before = here();
        for by in [0, 3_600, -86_400] {
            clock.set(by * 1000).unwrap();
            let there = seconds(&clock) - by;
            assert!((before..=here()).contains(&there), "moved by {by} s: {there}, here {before}");
        }
    }
}
