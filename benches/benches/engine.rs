//! The engine: appending a record (stamps, checksums, cache, hand-over to the writer), applying it to the
//! consume queues, reading both back.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput};
use folio_benches::{BATCH, Log, QUEUES, TOPIC, draft, keys, messages, queues};
use folio_engine::derived::Derived;
use folio_engine::keys::DerivedKeys;
use folio_engine::{ConsumeQueues, Record};
use tempfile::{TempDir, tempdir};

/// Records appended before the writer is waited for: what a broker has in flight is bounded too, and the
/// disk of a benchmark shall not fill.
const RECORDS_AHEAD: u64 = 64;
/// Bytes after which a benchmark's log is begun anew.
const LOG_BYTES_MAX: u64 = 1 << 30;
/// Records of the log that is read: twice what its cache holds.
const RECORDS_READ: usize = 500;
/// Records read of it at its beginning and at its end.
const RECORDS_SPAN: u64 = 100;
/// Units a pull asks for.
const UNITS: usize = 32;

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    for count in [1, BATCH] {
        let payload = messages(count).expect("short enough");
        group.throughput(Throughput::Elements(u64::from(count)));
        group.bench_function(format!("{count}_messages"), |bencher| {
            bencher.iter_custom(|rounds| time_appends(rounds, &payload, count));
        });
    }
    group.finish();
}

/// Time of the appends alone; the writer is waited for in between, off the clock.
fn time_appends(rounds: u64, payload: &[u8], count: u32) -> Duration {
    let per_log = (LOG_BYTES_MAX / payload.len() as u64).max(1);
    let (mut taken, mut left) = (Duration::ZERO, rounds);
    while left > 0 {
        let dir = tempdir().expect("a temporary directory");
        let mut log = Log::open(dir.path()).expect("an empty log opens");
        let here = left.min(per_log);
        for round in 1..=here {
            let draft = draft(payload, count);
            let begun = Instant::now();
            black_box(log.append(draft).expect("there is room"));
            taken += begun.elapsed();
            if round % RECORDS_AHEAD == 0 {
                assert!(log.written(), "the disk takes the log");
            }
        }
        log.log.close();
        left -= here;
    }
    taken
}

/// Records of a fresh log, in order.
fn records(count: usize) -> (TempDir, Log, Vec<Record>) {
    let dir = tempdir().expect("a temporary directory");
    let mut log = Log::open(dir.path()).expect("an empty log opens");
    let payload = messages(BATCH).expect("short enough");
    let records = (0..count).map(|_| log.append(draft(&payload, BATCH)).expect("there is room")).collect();
    assert!(log.written(), "the disk takes the log");
    (dir, log, records)
}

fn apply(criterion: &mut Criterion) {
    let (_dir, log, records) = records(RECORDS_READ);
    let mut group = criterion.benchmark_group("apply");
    group.sample_size(20).throughput(Throughput::Elements(RECORDS_READ as u64 * u64::from(BATCH)));
    group.bench_function("consume_queues", |bencher| {
        let fresh = || {
            let dir = tempdir().expect("a temporary directory");
            let queues = queues(dir.path()).expect("empty queues open");
            (dir, queues)
        };
        let apply = |(dir, queues): (TempDir, ConsumeQueues)| {
            let mut arrivals = Vec::new();
            for record in &records {
                arrivals.clear();
                queues.apply(record, &mut arrivals).expect("records come in order");
            }
            black_box(&arrivals);
            // Given back, so that removing the files is off the clock.
            (dir, queues)
        };
        bencher.iter_batched(fresh, apply, BatchSize::PerIteration);
    });
    // `sync` is what another thread does meanwhile: it sorts and writes the runs.
    for (name, syncs) in [("key_index", false), ("key_index_sync", true)] {
        group.bench_function(name, |bencher| {
            let fresh = || {
                let dir = tempdir().expect("a temporary directory");
                let keys = keys(dir.path()).expect("an empty index opens");
                (dir, keys)
            };
            let apply = |(dir, keys): (TempDir, DerivedKeys)| {
                let mut arrivals = Vec::new();
                for record in &records {
                    keys.apply(record, &mut arrivals).expect("memory is enough");
                }
                if syncs {
                    keys.sync().expect("the disk takes the index");
                }
                (dir, keys)
            };
            bencher.iter_batched(fresh, apply, BatchSize::PerIteration);
        });
    }
    group.finish();
    log.log.close();
}

fn read(criterion: &mut Criterion) {
    let (_dir, log, records) = records(RECORDS_READ);
    let queues_dir = tempdir().expect("a temporary directory");
    let queues = queues(queues_dir.path()).expect("empty queues open");
    let mut arrivals = Vec::new();
    for record in &records {
        queues.apply(record, &mut arrivals).expect("records come in order");
    }
    let mut group = criterion.benchmark_group("read");
    // The last ones are in the log's memory, the first ones no longer are.
    let last = RECORDS_READ as u64 + 1;
    for (name, start, end) in [("mapped", 1, 1 + RECORDS_SPAN), ("cached", last - RECORDS_SPAN, last)] {
        group.throughput(Throughput::Elements(RECORDS_SPAN * u64::from(BATCH)));
        group.bench_function(format!("records_{name}"), |bencher| {
            bencher.iter(|| {
                let mut at = start;
                while at < end {
                    let records = log.log.read(at, end, 1 << 20).expect("the log is whole");
                    at = records.last().map_or(end, |record| record.header.index + 1);
                }
            });
        });
    }
    group.throughput(Throughput::Elements(UNITS as u64));
    let mut turn = 0;
    group.bench_function("pull_of_one_queue", |bencher| {
        bencher.iter(|| {
            turn = (turn + 1) % (RECORDS_READ as u64);
            let units =
                queues.units(TOPIC, turn as u32 % QUEUES, turn * 10, UNITS).expect("the queue is whole");
            assert_eq!(units.len(), UNITS);
            for unit in units {
                black_box(log.log.bytes(unit.position, unit.size as usize).expect("the log is whole"));
            }
        });
    });
    group.finish();
    log.log.close();
}

fn main() {
    let times = Criterion::default().measurement_time(Duration::from_secs(3));
    let mut criterion = times.warm_up_time(Duration::from_secs(1)).configure_from_args();
    append(&mut criterion);
    apply(&mut criterion);
    read(&mut criterion);
    criterion.final_summary();
}
