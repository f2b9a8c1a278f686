//! replicas: the replicas' log files hold the same bytes, at the same positions, up to
//! the committed position.
//!
//! The files are named by the 20-digit position of their first byte. They are compared as raw
//! bytes while the nodes run: nothing below the committed position may change any more.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::Finding;

const CHUNK_BYTES: usize = 1 << 20;

/// One replica's log files.
#[derive(Debug)]
pub struct LogFiles {
    /// Whose they are, for messages.
    pub reader: String,
    segments: BTreeMap<u64, (PathBuf, File, u64)>,
}

impl LogFiles {
    /// Opens the segment files of the folder `commitlog`.
    ///
    /// # Errors
    /// When the folder cannot be read, holds no segment, or segments leave a hole.
    pub fn open(reader: impl Into<String>, commitlog: &Path) -> Result<Self> {
        let shown = commitlog.display();
        let mut segments = BTreeMap::new();
        for entry in std::fs::read_dir(commitlog).with_context(|| format!("list {shown}"))? {
            let path = entry.with_context(|| format!("list {shown}"))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.len() != 20 || !name.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let start: u64 = name.parse().with_context(|| format!("segment name {name}"))?;
            let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
            let (len, file) = opened.with_context(|| format!("open {}", path.display()))?;
            segments.insert(start, (path, file, len));
        }
        ensure!(!segments.is_empty(), "no segment file in {shown}");
        let ends = segments.iter().map(|(start, (_, _, len))| start + len);
        for (end, next) in ends.zip(segments.keys().skip(1)) {
            ensure!(end == *next, "{shown}: a segment ends at {end}, the next starts at {next}");
        }
        Ok(Self { reader: reader.into(), segments })
    }

    /// First position the files hold.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.segments.first_key_value().map_or(0, |(start, _)| *start)
    }

    /// How many files there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.segments.len()
    }

    /// Reads bytes from `position` on, at most to the end of their segment; 0 means none are there.
    fn read_at(&self, buf: &mut [u8], position: u64) -> Result<usize> {
        let Some((start, (path, file, _))) = self.segments.range(..=position).next_back() else {
            return Ok(0);
        };
        loop {
            match file.read_at(buf, position - start) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.with_context(|| format!("read {}", path.display())),
            }
        }
    }
}

/// Compares all replicas' bytes below `end`, from the first position all of them still hold.
///
/// # Errors
/// When a file cannot be read.
pub fn check(replicas: &[LogFiles], end: u64) -> Result<Finding> {
    let mut finding = Finding::fatal("replicas");
    let Some((first, others)) = replicas.split_first() else { return Ok(finding) };
    let start = replicas.iter().map(LogFiles::start).max().unwrap_or(0);
    for other in others {
        if let Some(position) = first_difference(first, other, start, end)? {
            finding.add(|| {
                format!(
                    "{} and {} differ at position {position} (compared {start} to {end})",
                    first.reader, other.reader
                )
            });
        }
    }
    Ok(finding)
}

fn first_difference(a: &LogFiles, b: &LogFiles, start: u64, end: u64) -> Result<Option<u64>> {
    let (mut left, mut right) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let mut position = start;
    while position < end {
        let wanted = usize::try_from(end - position).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let count = a.read_at(&mut left[..wanted], position)?;
        let count = b.read_at(&mut right[..count], position)?;
        if count == 0 {
            // One of them ends below the committed position.
            return Ok(Some(position));
        }
        if left[..count] != right[..count] {
            let at = left.iter().zip(&right).position(|(left, right)| left != right).unwrap_or(0);
            return Ok(Some(position + at as u64));
        }
        position += count as u64;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(segments: &[(u64, &[u8])]) -> (tempfile::TempDir, LogFiles) {
        let dir = tempfile::tempdir().unwrap();
        for (start, bytes) in segments {
            std::fs::write(dir.path().join(format!("{start:020}")), bytes).unwrap();
        }
        std::fs::write(dir.path().join("vote"), b"not a segment").unwrap();
        let files = LogFiles::open("node", dir.path()).unwrap();
        (dir, files)
    }

    #[test]
    fn one_different_byte_below_the_end_is_found_and_named() {
        let (_a, a) = replica(&[(0, b"abcd"), (4, b"efgh")]);
        let (_b, b) = replica(&[(0, b"abcd"), (4, b"efXh")]);
        let finding = check(&[a, b], 8).unwrap();
        assert_eq!(finding.count, 1);
        assert!(finding.fails());
        assert!(finding.examples[0].contains("position 6"), "{:?}", finding.examples);
    }

    #[test]
    fn bytes_past_the_end_do_not_matter() {
        let (_a, a) = replica(&[(0, b"abcd"), (4, b"efgh")]);
        let (_b, b) = replica(&[(0, b"abcd"), (4, b"efXh")]);
        assert_eq!(check(&[a, b], 6).unwrap().count, 0);
    }

    #[test]
    fn a_replica_that_ends_early_differs_and_one_that_starts_later_does_not() {
        let (_a, a) = replica(&[(0, b"abcd"), (4, b"efgh")]);
        let (_b, b) = replica(&[(4, b"efgh")]);
        let (_c, c) = replica(&[(0, b"abcd")]);
        assert_eq!(check(&[a, b], 8).unwrap().count, 0);
        let (_a, a) = replica(&[(0, b"abcd"), (4, b"efgh")]);
        assert_eq!(check(&[a, c], 8).unwrap().count, 1);
    }

    #[test]
    fn a_hole_between_segments_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(format!("{:020}", 0)), b"abcd").unwrap();
        std::fs::write(dir.path().join(format!("{:020}", 8)), b"abcd").unwrap();
        assert!(LogFiles::open("node", dir.path()).is_err());
    }
}
