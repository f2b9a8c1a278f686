//! The loopback's limit: bytes one way, and the round trip of one byte between two threads.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::load::latencies;

const WRITE_BYTES: usize = 64 << 10;

pub(super) fn run(seconds: f64) -> Result<()> {
    let time = Duration::from_secs_f64(seconds);
    let (mut ours, mut theirs) = pair()?;
    let echo = thread::spawn(move || {
        let mut byte = [0];
        while theirs.read_exact(&mut byte).is_ok() && theirs.write_all(&byte).is_ok() {}
    });
    let mut histogram = latencies()?;
    let begun = Instant::now();
    while begun.elapsed() < time {
        let (now, mut byte) = (Instant::now(), [0]);
        ours.write_all(&byte)?;
        ours.read_exact(&mut byte)?;
        histogram.saturating_record((now.elapsed().as_micros() as u64).max(1));
    }
    drop(ours);
    let _ = echo.join();
    let bytes = one_way(time)?;
    let report = serde_json::json!({
        "round_trip_p50_ms": histogram.value_at_quantile(0.5) as f64 / 1e3,
        "mb_per_s": bytes as f64 / seconds / 1e6,
    });
    println!("{report}");
    Ok(())
}

fn one_way(time: Duration) -> Result<usize> {
    let (mut ours, mut theirs) = pair()?;
    let sink = thread::spawn(move || {
        let (mut buffer, mut total) = (vec![0; WRITE_BYTES], 0);
        while let Ok(read @ 1..) = theirs.read(&mut buffer) {
            total += read;
        }
        total
    });
    let (block, begun) = (vec![1; WRITE_BYTES], Instant::now());
    while begun.elapsed() < time {
        ours.write_all(&block)?;
    }
    drop(ours);
    Ok(sink.join().unwrap_or(0))
}

fn pair() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let ours = TcpStream::connect(listener.local_addr()?)?;
    let (theirs, _) = listener.accept()?;
    ours.set_nodelay(true)?;
    theirs.set_nodelay(true)?;
    Ok((ours, theirs))
}
