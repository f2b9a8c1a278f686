//! Reads of old messages: how many at once, in which order, and how long they wait.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::cpu_idle::Ticks;
use super::*;

const FLOOR: u64 = 1 << 20;

fn config(at_once: usize) -> ColdReadsConfig {
    ColdReadsConfig { recent_bytes: 1000, floor_bytes: FLOOR, at_once }
}

fn read(bytes: usize) -> ColdRead {
    ColdRead { consumer: ("g".into(), "t".into()), position: 0, bytes }
}

/// On a machine with nothing to spare, whose log grows by 100 MB in a second while `writes` is set.
fn busy(at_once: usize, writes: Arc<AtomicBool>) -> Arc<ColdReads> {
    let (written, last) = (AtomicU64::new(0), Mutex::new(Instant::now()));
    let sample = move || {
        let now = Instant::now();
        let since = now - std::mem::replace(&mut *last.lock(), now);
        let grown = if writes.load(Ordering::Relaxed) { since.as_millis() as u64 * 100_000 } else { 0 };
        Sample {
            at: now.into_std(),
            written: written.fetch_add(grown, Ordering::Relaxed) + grown,
            synced_for: Duration::ZERO,
            processors: Some(Ticks { idle: 0, all: 0 }),
        }
    };
    Arc::new(ColdReads::watching(config(at_once), sample))
}

/// The same, once it has noticed that somebody writes.
async fn paced(at_once: usize, writes: &Arc<AtomicBool>) -> Arc<ColdReads> {
    writes.store(true, Ordering::Relaxed);
    let reads = busy(at_once, writes.clone());
    for _ in 0..3 {
        drop(reads.begin(read(1)).await);
        sleep(Duration::from_millis(250)).await;
    }
    reads
}

#[test]
fn what_is_close_to_the_end_is_not_old() {
    let reads = busy(1, Arc::default());
    assert!(reads.is_cold(0, 1001) && !reads.is_cold(0, 1000) && !reads.is_cold(5000, 1000));
}

#[tokio::test(start_paused = true)]
async fn i1_so_many_at_once_and_no_more() {
    let reads = busy(2, Arc::default());
    let first = reads.try_begin(100).expect("one");
    let _second = reads.try_begin(100).expect("two");
    assert!(reads.try_begin(100).is_none(), "three");
    let waiting = reads.clone();
    let third = tokio::spawn(async move { waiting.begin(read(100)).await });
    sleep(Duration::from_secs(60)).await;
    assert!(!third.is_finished());
    drop(first);
    assert!(third.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_reader_alone_is_not_paced() {
    let (reads, begun) = (busy(4, Arc::default()), Instant::now());
    for _ in 0..1000 {
        assert!(reads.try_begin(256 << 10).is_some());
        sleep(Duration::from_millis(1)).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn beside_writers_reads_are_paced_and_all_of_them_begin_in_their_order() {
    let writes = Arc::default();
    let reads = paced(4, &writes).await;
    let (begun, order) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
    let each = (0..15).map(|number| {
        let (reads, order) = (reads.clone(), order.clone());
        tokio::spawn(async move {
            let turn = reads.begin(read(FLOOR as usize / 10)).await;
            order.lock().push(number);
            drop(turn);
        })
    });
    for read in each.collect::<Vec<_>>() {
        read.await.expect("it begins");
    }
    assert_eq!(*order.lock(), (0..15).collect::<Vec<_>>());
    let took = begun.elapsed();
    assert!((1200..1600).contains(&took.as_millis()), "a tenth of the floor each: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn i2_however_many_there_are_none_waits_longer_than_its_patience() {
    let writes = Arc::default();
    let reads = paced(100, &writes).await;
    let begun = Instant::now();
    let each = (0..100).map(|_| {
        let reads = reads.clone();
        tokio::spawn(async move { drop(reads.begin(read(FLOOR as usize)).await) })
    });
    for read in each.collect::<Vec<_>>() {
        read.await.expect("it begins");
    }
    assert!(begun.elapsed() <= WAIT_MAX + LOOK_EVERY, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn when_the_writers_end_those_that_wait_go_on() {
    let writes = Arc::default();
    let reads = paced(100, &writes).await;
    drop(reads.begin(read(10 * FLOOR as usize)).await);
    assert!(reads.try_begin(1).is_none(), "ten seconds of the floor are taken");
    writes.store(false, Ordering::Relaxed);
    let begun = Instant::now();
    drop(reads.begin(read(1)).await);
    assert!(begun.elapsed() < WAIT_MAX / 2, "{:?}", begun.elapsed());
}
