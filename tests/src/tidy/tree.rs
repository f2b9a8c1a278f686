//! The text files of the checkout, as the rules see them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

/// One text file of the repository.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Path from the repository's root, with `/` between the parts.
    pub path: String,
    /// The whole file.
    pub text: String,
}

/// Reading the checkout failed.
#[derive(Debug)]
pub struct TreeError {
    /// What was being read.
    pub path: PathBuf,
    /// Why it could not be.
    pub source: io::Error,
}

impl std::fmt::Display for TreeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot read {}: {}", self.path.display(), self.source)
    }
}

impl std::error::Error for TreeError {}

/// Every text file that belongs to the repository: what git tracks, or, outside a git checkout
/// (an unpacked archive), everything but build output and hidden directories. Files that are not
/// UTF-8 are binary fixtures and left out.
///
/// # Errors
/// When a directory or a listed file cannot be read.
pub fn read_tree(root: &Path) -> Result<Vec<SourceFile>, TreeError> {
    let paths = match tracked(root) {
        Some(paths) => paths,
        None => walk(root)?,
    };
    let mut files = Vec::new();
    for path in paths {
        let full = root.join(&path);
        match fs::read(&full) {
            Ok(bytes) => {
                if let Ok(text) = String::from_utf8(bytes) {
                    files.push(SourceFile { path, text });
                }
            }
            // Tracked but deleted in the work tree: the next commit drops it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(TreeError { path: full, source }),
        }
    }
    Ok(files)
}

fn tracked(root: &Path) -> Option<Vec<String>> {
    let output = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .ok()?;
    if !output.status.success() || output.stdout.is_empty() {
        return None;
    }
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect())
}

fn walk(root: &Path) -> Result<Vec<String>, TreeError> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_path_buf()];
    while let Some(dir) = waiting.pop() {
        let failed = |source| TreeError { path: dir.clone(), source };
        for entry in fs::read_dir(&dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') || name == "target" || name == "folio-data" {
                continue;
            }
            if entry.file_type().map_err(failed)?.is_dir() {
                waiting.push(entry.path());
            } else if let Ok(path) = entry.path().strip_prefix(root) {
                found.push(path.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_git_the_walk_skips_build_output_and_hidden_directories() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/x.rs", "target/y.rs", ".git/z.rs", "folio-data/w.rs"] {
            let full = dir.path().join(path);
            fs::create_dir_all(full.parent().unwrap()).unwrap();
            fs::write(full, "text").unwrap();
        }
        assert_eq!(walk(dir.path()).unwrap(), ["a/x.rs"]);
    }
}
