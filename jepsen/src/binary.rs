//! Finds the binary `folio`, or has cargo build it.
//!
//! In this order: the path given, the environment's `FOLIO_BIN`, `folio` beside this executable,
//! and `folio` where cargo puts it when it builds this workspace in release mode.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The binary's path.
///
/// # Errors
/// When a path was given and nothing is there, or when building fails.
pub fn find(given: Option<&Path>) -> Result<PathBuf> {
    let named = given.map(Path::to_owned).or_else(|| std::env::var_os("FOLIO_BIN").map(PathBuf::from));
    if let Some(path) = named {
        ensure!(path.is_file(), "no file at {} (from --folio or FOLIO_BIN)", path.display());
        return std::path::absolute(&path).with_context(|| format!("make {} absolute", path.display()));
    }
    let own = std::env::current_exe().context("find this executable")?;
    // A test's executable lies one folder deeper, in target/<profile>/deps.
    let places = own.ancestors().skip(1).take(2).map(|folder| folder.join("folio"));
    if let Some(beside) = places.into_iter().find(|path| path.is_file()) {
        return Ok(beside);
    }
    build(&own)
}

/// Whether this binary's configuration has such a key: its own example spells all of them out.
///
/// # Errors
/// When the binary does not print one.
pub fn has_key(binary: &Path, key: &str) -> Result<bool> {
    let said = Command::new(binary).args(["node", "--example"]).output();
    let said = said.with_context(|| format!("run {}", binary.display()))?;
    ensure!(said.status.success(), "{} node --example ended with {}", binary.display(), said.status);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    Ok(text.lines().any(|line| line.trim_start_matches(['#', ' ']).starts_with(key)))
}

/// Builds in the profile and into the target folder this executable came from.
fn build(own: &Path) -> Result<PathBuf> {
    let workspace =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate lies in a workspace")?;
    let release = own.components().any(|part| part.as_os_str() == "release");
    let profile = if release { "release" } else { "debug" };
    let target = own
        .ancestors()
        .find(|folder| folder.file_name().is_some_and(|name| name == profile))
        .and_then(Path::parent)
        .with_context(|| format!("{} lies in no cargo target folder; give --folio PATH", own.display()))?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace)
        .args(["build", "-p", "folio-cli", "--bin", "folio", "--target-dir"])
        .arg(target);
    if release {
        cargo.arg("--release");
    }
    eprintln!("no folio beside this executable: building it");
    let status = cargo.status().context("run cargo")?;
    ensure!(status.success(), "cargo build of folio ended with {status}");
    let built = target.join(profile).join("folio");
    ensure!(built.is_file(), "cargo built no {}", built.display());
    Ok(built)
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn a_given_path_must_exist() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("folio");
        let error = find(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("--folio"), "{error}");
        std::fs::write(&path, b"").unwrap();
        assert_eq!(find(Some(&path)).unwrap(), path);
    }
}
