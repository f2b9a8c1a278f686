use super::super::budget::MEMORY_BYTES_MIN;
use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn outgoing(bytes_max: usize) -> (Outgoing, Arc<Budget>) {
    let budget = Budget::new(MEMORY_BYTES_MIN);
    (of(bytes_max, &budget), budget)
}

fn of(bytes_max: usize, budget: &Arc<Budget>) -> Outgoing {
    Outgoing::new(bytes_max, budget, &budget.address([10, 0, 0, 1].into()))
}

#[tokio::test]
async fn everything_pushed_leaves_in_order_and_the_writer_ends_when_drained() {
    let (outgoing, _) = outgoing(1 << 20);
    for text in ["one ", "two "] {
        outgoing.push(|tail| tail.extend_from_slice(text.as_bytes())).expect("open");
    }
    let parts = (0..200).map(|_| Bytes::from_static(b".")).collect();
    outgoing.push_parts(|tail| tail.extend_from_slice(b"head"), parts).expect("open");
    outgoing.push(|tail| tail.extend_from_slice(b" end")).expect("open");
    outgoing.drain();
    outgoing.push(|tail| tail.extend_from_slice(b"too late")).expect("dropped silently");
    let mut out = Vec::new();
    outgoing.write_all(&mut out, PATIENCE).await.expect("a Vec takes everything");
    assert_eq!(out, format!("one two head{} end", ".".repeat(200)).into_bytes());
    assert_eq!(outgoing.queue.lock().bytes, 0);
}

/// A client that had read nothing yet was handed megabytes in one turn, and everybody else waited.
#[tokio::test]
async fn much_for_one_client_leaves_in_turns() {
    let (outgoing, _) = outgoing(8 << 20);
    let large = Bytes::from(vec![7; 3 * WRITE_BYTES_MAX + 5]);
    outgoing.push_parts(|tail| tail.extend_from_slice(b"head"), vec![large.clone()]).expect("it fits");
    outgoing.drain();
    let (mut client, socket) = tokio::io::duplex(8 << 20);
    let turns = async {
        let mut turns = 0;
        while !outgoing.queue.lock().parts.is_empty() || outgoing.queued() > 0 {
            turns += 1;
            tokio::task::yield_now().await;
        }
        turns
    };
    let (written, turns) = tokio::join!(outgoing.write_all(socket, PATIENCE), turns);
    written.expect("there is room");
    assert!(turns >= 4, "{turns} turns");
    let mut all = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut client, &mut all).await.expect("readable");
    assert_eq!(all, [&b"head"[..], &large].concat());
}

#[test]
fn i3_a_peer_that_does_not_read_is_found_out_by_bytes() {
    let (outgoing, _) = outgoing(10);
    outgoing.push(|tail| tail.extend_from_slice(b"0123456789")).expect("just fits");
    assert!(outgoing.is_long());
    let overflow = outgoing.push(|tail| tail.extend_from_slice(b"x")).expect_err("one too many");
    assert_eq!(overflow, Overflow::Client { queued: 11, max: 10 });
}

/// Twenty clients that did not read had 32 MiB each read and copied for them at once, and every send waited meanwhile.
#[test]
fn i5_a_client_has_to_read_first_long_before_the_bound() {
    let outgoing = of(64 << 20, &Budget::new(1 << 30));
    let answer = || vec![Bytes::from(vec![0; LONG_BYTES / 2])];
    let is_long = [(); 3].map(|()| {
        outgoing.push_parts(|_| {}, answer()).expect("it fits");
        outgoing.is_long()
    });
    assert_eq!(is_long, [false, false, true]);
}

/// Twenty clients that did not read held 1.1 GB, and kept it as long as they liked.
#[tokio::test(start_paused = true)]
async fn i8_a_peer_that_takes_nothing_is_given_up() {
    let (outgoing, budget) = outgoing(1 << 20);
    let (deaf, mut socket) = tokio::io::duplex(1_000);
    outgoing.push(|tail| tail.extend_from_slice(&[0; 500_000])).expect("it fits");
    assert!(budget.used(Share::Answers) >= 500_000);
    let started = tokio::time::Instant::now();
    let reason = outgoing.write_all(&mut socket, PATIENCE).await.expect_err("nobody reads");
    assert!(matches!(reason, CloseReason::Stuck { queued: 499_000, .. }), "{reason}");
    assert!(started.elapsed() >= PATIENCE && started.elapsed() < 2 * PATIENCE, "{:?}", started.elapsed());
    outgoing.close();
    assert_eq!(budget.used(Share::Answers), 0);
    drop(deaf);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_slowly_is_served() {
    let (outgoing, budget) = outgoing(1 << 20);
    let (mut slow, mut socket) = tokio::io::duplex(1_000);
    outgoing.push(|tail| tail.extend_from_slice(&[0; 20_000])).expect("it fits");
    outgoing.drain();
    let reading = async {
        let mut some = [0; 1_000];
        while tokio::io::AsyncReadExt::read(&mut slow, &mut some).await.expect("readable") > 0 {
            tokio::time::sleep(PATIENCE / 2).await;
        }
    };
    let (written, ()) = tokio::join!(outgoing.write_all(&mut socket, PATIENCE), reading);
    written.expect("each of its reads is progress");
    assert_eq!((outgoing.queued(), budget.used(Share::Answers)), (0, 0));
}

#[tokio::test]
async fn a_client_with_half_of_what_may_wait_has_to_read_half_of_that_first() {
    let (outgoing, _) = outgoing(1_000);
    outgoing.push(|tail| tail.extend_from_slice(&[0; 500])).expect("half of it");
    assert!(!outgoing.is_long());
    outgoing.push(|tail| tail.extend_from_slice(&[0; 1])).expect("more than half");
    assert!(outgoing.is_long());
    outgoing.drain();
    let mut out = Vec::new();
    let (written, ()) = tokio::join!(outgoing.write_all(&mut out, PATIENCE), outgoing.short());
    written.expect("a Vec takes everything");
    assert!(!outgoing.is_long());
}

#[test]
fn i3_all_clients_together_have_no_more_waiting_than_the_nodes_share() {
    let budget = Budget::new(MEMORY_BYTES_MIN);
    let push = |outgoing: &Outgoing| outgoing.push(|tail| tail.extend_from_slice(&[0; 4 << 20]));
    let clients: Vec<Outgoing> = (0..4).map(|_| of(64 << 20, &budget)).collect();
    let pushed: Vec<_> = clients.iter().map(push).collect();
    assert_eq!(pushed, [Ok(()), Ok(()), Ok(()), Err(Overflow::Node)], "twelve MiB are the share");
    clients[0].close();
    assert_eq!(push(&clients[1]), Ok(()));
}

/// A client that reads all the time has always something unread, and never the same.
#[tokio::test(start_paused = true)]
async fn i3_unread_counts_since_the_oldest_bytes_wait_and_ends_at_the_base() {
    let (outgoing, _) = outgoing(1 << 20);
    let push = |bytes| outgoing.push(|tail| tail.resize(tail.len() + bytes, 0)).expect("it fits");
    push(BASE_BYTES);
    assert_eq!(outgoing.unread_since(), None);
    push(1);
    let first = Instant::now();
    assert_eq!(outgoing.unread_since(), Some(first));
    tokio::time::sleep(PATIENCE).await;
    push(100_000);
    outgoing.left(BASE_BYTES);
    assert_eq!(outgoing.unread_since(), Some(first), "one byte of these is left");
    outgoing.left(1);
    assert_eq!(outgoing.unread_since(), Some(Instant::now()));
    outgoing.left(100_000 - BASE_BYTES);
    assert_eq!(outgoing.unread_since(), None);
}

#[test]
fn client_parts_i1_a_client_with_more_unread_than_its_part_of_what_is_left_has_to_read_first() {
    let (one, budget) = outgoing(64 << 20);
    let push = |outgoing: &Outgoing, bytes: usize| outgoing.push(|tail| tail.resize(bytes, 0));
    let left = budget.limit(Share::Answers) / 16;
    let rest = budget.take(Share::Answers, budget.limit(Share::Answers) - left).expect("it is left");
    assert_eq!(push(&one, left / 8 - STEP_BYTES), Ok(()));
    assert!(!one.is_long());
    let other = of(64 << 20, &budget);
    assert_eq!(push(&other, left / 4), Ok(()));
    assert!(other.is_long());
    other.left(left / 8);
    assert!(!other.is_long());
    drop(rest);
}
