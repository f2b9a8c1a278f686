//! The disk's limit: sequential `pwrite` + `fdatasync`, each file by a thread of its own, into space that
//! was written with zeros before, as a log's segments are.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;

use crate::load::latencies;

/// Bytes of each file; it is written round and round.
const FILE_BYTES: usize = 128 << 20;
const CHUNK_BYTES: usize = 1 << 20;

/// `peers disk`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Where to make the files.
    #[arg(long)]
    data: PathBuf,
    /// Bytes of each write.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Files written at the same time.
    #[arg(long, default_value_t = 1)]
    files: usize,
    /// How long.
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
}

pub(super) fn run(options: &Options) -> Result<()> {
    ensure!((1..=FILE_BYTES).contains(&options.size), "--size {}: expected 1 to {FILE_BYTES}", options.size);
    ensure!((1..=64).contains(&options.files), "--files {}: expected 1 to 64", options.files);
    std::fs::create_dir_all(&options.data)
        .with_context(|| format!("cannot make {}", options.data.display()))?;
    let together = Arc::new(Barrier::new(options.files));
    let mut threads = Vec::new();
    for number in 0..options.files {
        let path = options.data.join(format!("disk.{number}"));
        let file = zeroed(&path).with_context(|| format!("cannot make {}", path.display()))?;
        std::fs::remove_file(&path)?;
        let (together, size, seconds) = (together.clone(), options.size, options.seconds);
        threads.push(thread::spawn(move || write(&file, size, seconds, &together)));
    }
    let (mut all, mut elapsed) = (latencies()?, 0.0_f64);
    for thread in threads {
        let (histogram, took) = thread.join().map_err(|_| anyhow!("a writing thread ended early"))??;
        all.add(histogram)?;
        elapsed = elapsed.max(took);
    }
    let per_second = all.len() as f64 / elapsed;
    let report = serde_json::json!({
        "writes_per_s": per_second,
        "mb_per_s": per_second * options.size as f64 / 1e6,
        "p50_ms": all.value_at_quantile(0.5) as f64 / 1e3,
        "p99_ms": all.value_at_quantile(0.99) as f64 / 1e3,
        "max_ms": all.max() as f64 / 1e3,
    });
    println!("{report}");
    Ok(())
}

fn zeroed(path: &std::path::Path) -> Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    let zeros = vec![0; CHUNK_BYTES];
    for at in (0..FILE_BYTES).step_by(CHUNK_BYTES) {
        file.write_all_at(&zeros, at as u64)?;
    }
    file.sync_all()?;
    Ok(file)
}

fn write(
    file: &File,
    size: usize,
    seconds: f64,
    together: &Barrier,
) -> Result<(hdrhistogram::Histogram<u64>, f64)> {
    // Not all zeros: some disks treat those apart.
    let block: Vec<u8> = (0..size).map(|at| (at * 31 % 251) as u8 + 1).collect();
    let mut histogram = latencies()?;
    together.wait();
    let begun = Instant::now();
    let end = begun + Duration::from_secs_f64(seconds);
    let mut at = 0;
    loop {
        let now = Instant::now();
        if now >= end {
            return Ok((histogram, begun.elapsed().as_secs_f64()));
        }
        if at + size > FILE_BYTES {
            at = 0;
        }
        file.write_all_at(&block, at as u64)?;
        file.sync_data()?;
        at += size;
        histogram.saturating_record((now.elapsed().as_micros() as u64).max(1));
    }
}
