//! Tests of the table of long polls: its indexes beside a scan of all polls, and whose polls give way.

use std::collections::BTreeSet;

use folio_protocol::java::tags_code;
use proptest::prelude::*;

use super::arrivals;
use super::*;

fn filter(expression: &str) -> Arc<TagFilter> {
    Arc::new(TagFilter::parse(expression).expect("an expression"))
}

fn poll<P>(queue: u32, offset: u64, connection: u64, now: Instant, payload: P) -> Poll<P> {
    Poll {
        topic: "orders".into(),
        queue,
        offset,
        filter: filter("*"),
        deadline: now + Duration::from_secs(15),
        connection,
        bytes: 0,
        payload,
    }
}

fn arrival(queue: u32, offset: u64, tags_code: i64) -> Arrival {
    Arrival { topic: "orders".into(), queue, offset, tags_code }
}

fn payloads<P: Ord>(polls: Vec<Poll<P>>) -> Vec<P> {
    let mut payloads: Vec<P> = polls.into_iter().map(|poll| poll.payload).collect();
    payloads.sort();
    payloads
}

/// Parks a poll for which none leaves.
fn park<P>(table: &PollTable<P>, poll: Poll<P>, now: Instant) -> Ticket {
    let (ticket, left) = table.park(poll, now);
    assert!(left.is_empty());
    ticket
}

/// What the task that wakes polls does.
fn wake<P>(table: &PollTable<P>) -> Vec<Poll<P>> {
    let news = table.arrivals().take();
    table.take_all(&table.answered_by(&news))
}

fn arrive<P>(table: &PollTable<P>, arrivals: &[Arrival]) -> Vec<Poll<P>> {
    table.note(arrivals);
    wake(table)
}

fn expire<P>(table: &PollTable<P>, now: Instant) -> Vec<Poll<P>> {
    table.take_all(&table.expired(now))
}

#[test]
fn an_arrival_wakes_the_polls_of_its_queue_once() {
    let (table, now) = (PollTable::new(100), Instant::now());
    park(&table, poll(0, 7, 1, now, "a"), now);
    park(&table, poll(0, 7, 2, now, "b"), now);
    park(&table, poll(1, 7, 2, now, "other queue"), now);
    assert_eq!(payloads(arrive(&table, &[arrival(0, 7, 0), arrival(0, 8, 0)])), ["a", "b"]);
    assert!(arrive(&table, &[arrival(0, 9, 0)]).is_empty());
    assert_eq!(table.len(), 1);
}

#[test]
fn an_arrival_below_the_offset_or_with_another_tag_wakes_nobody() {
    let (table, now) = (PollTable::new(100), Instant::now());
    park(&table, poll(0, 7, 1, now, "later"), now);
    park(&table, Poll { filter: filter("TagA || TagC"), ..poll(0, 3, 1, now, "tagged") }, now);
    assert!(arrive(&table, &[arrival(0, 6, tags_code("TagB"))]).is_empty());
    assert_eq!(payloads(arrive(&table, &[arrival(0, 6, tags_code("TagA"))])), ["tagged"]);
    assert!(arrive(&table, &[arrival(0, 6, tags_code("TagC"))]).is_empty(), "a poll leaves once");
}

#[test]
fn polls_expire_in_the_order_of_their_deadlines() {
    let (table, now) = (PollTable::new(100), Instant::now());
    let after = |seconds| now + Duration::from_secs(seconds);
    park(&table, Poll { deadline: after(2), ..poll(0, 0, 1, now, "late") }, now);
    park(&table, Poll { deadline: after(1), ..poll(0, 0, 1, now, "soon") }, now);
    assert!(expire(&table, now).is_empty());
    assert_eq!(payloads(expire(&table, after(1))), ["soon"]);
    assert_eq!(payloads(expire(&table, after(9))), ["late"]);
    assert!(table.is_empty());
}

#[test]
fn a_closed_connection_takes_its_polls_along() {
    let (table, now) = (PollTable::new(100), Instant::now());
    park(&table, poll(0, 0, 1, now, "gone"), now);
    park(&table, Poll { filter: filter("a || b"), ..poll(1, 0, 1, now, "gone too") }, now);
    park(&table, poll(0, 0, 2, now, "stays"), now);
    assert_eq!(payloads(table.close(1)), ["gone", "gone too"]);
    assert_eq!(payloads(table.drain()), ["stays"]);
    assert!(table.state.lock().is_empty());
}

/// Every arrival looked at all of them, under the lock, on the thread that applies: the leader was deaf for 79 seconds.
#[test]
fn polls_with_a_tag_that_never_comes_cost_every_arrival_a_look_at_each() {
    const POLLS: u64 = 100_000;
    let (table, now, never) = (PollTable::new(POLLS as usize), Instant::now(), filter("never"));
    for number in 0..POLLS {
        let poll = Poll { filter: never.clone(), ..poll(0, 0, number % 64, now, "hostile") };
        park(&table, poll, now);
    }
    park_last(&table, now);
    for offset in 0..1_000 {
        assert!(arrive(&table, &[arrival(0, offset, tags_code("a"))]).is_empty());
    }
    assert_eq!(table.touched(), 0);
    assert_eq!(payloads(arrive(&table, &[arrival(0, 1_000, tags_code("b"))])), ["honest"]);
    assert_eq!(table.touched(), 1);
}

/// One more than there is room for.
fn park_last(table: &PollTable<&'static str>, now: Instant) {
    let (_, left) = table.park(Poll { filter: filter("b"), ..poll(0, 1_000, 99, now, "honest") }, now);
    assert!(left.is_empty(), "who gives way leaves later");
}

/// A hostile connection had the table to itself: honest polls were answered at once, and their clients asked again at once.
#[test]
fn polls_i4_a_full_table_sent_honest_polls_back_at_once() {
    let (table, now) = (PollTable::new(80), Instant::now());
    for number in 0..500 {
        table.park(poll(0, number, number % 4, now, "hostile"), now);
    }
    for number in 0..16 {
        let (ticket, left) = table.park(poll(1, number, 10 + number % 2, now, "honest"), now);
        assert!(payloads(left).iter().all(|payload| *payload == "hostile"));
        assert!(table.state.lock().polls.contains_key(&ticket));
    }
    for number in 0..500 {
        let (_, left) = table.park(poll(0, number, number % 4, now, "hostile"), now);
        assert!(payloads(left).iter().all(|payload| *payload == "hostile"));
    }
    let honest = payloads(arrive(&table, &[arrival(1, 99, 0)]));
    assert_eq!(honest, vec!["honest"; 16]);
}

#[test]
fn polls_i2_a_poll_that_gives_way_leaves_a_little_later_and_is_woken_until_then() {
    // Two stay, of them one of a connection, and one leaves.
    let (table, now) = (PollTable::new(2), Instant::now());
    let late = now + LEAVES_AFTER;
    assert!(payloads(table.park(poll(0, 0, 1, now, "first"), now).1).is_empty());
    assert!(payloads(table.park(poll(0, 1, 1, now, "second"), now).1).is_empty());
    assert!(expire(&table, late - Duration::from_millis(1)).is_empty(), "not at once");
    assert_eq!(payloads(expire(&table, late)), ["first"]);
    assert!(payloads(table.park(poll(0, 2, 1, now, "third"), now).1).is_empty());
    assert_eq!(
        payloads(arrive(&table, &[arrival(0, 1, 0)])),
        ["second"],
        "it waits for its message until it leaves"
    );
    assert!(payloads(table.park(poll(0, 3, 1, now, "fourth"), now).1).is_empty());
    assert_eq!(payloads(table.park(poll(0, 4, 1, now, "fifth"), now).1), ["third"], "too many leave");
    assert_eq!(payloads(table.drain()), ["fifth", "fourth"]);
    assert!(table.state.lock().is_empty());
}

/// 40 held pulls with an expression of 1 MiB had 1.7 GB.
#[test]
fn polls_i2_large_polls_weigh_more() {
    let (table, now) = (PollTable::new(1_000), Instant::now());
    for number in 0..200 {
        let large = Poll { bytes: 64 << 10, ..poll(0, 0, number % 10, now, number) };
        table.park(large, now);
    }
    let kept = table.len();
    assert!(
        (10..=18).contains(&kept),
        "{kept} polls of 64 KiB in a table of 1,000 KiB, and an eighth that leave"
    );
}

/// A poll as the model has it: its number, queue, offset and tags, none for all.
#[derive(Debug, Clone)]
struct Wanted {
    queue: u32,
    offset: u64,
    tags: BTreeSet<&'static str>,
}

#[derive(Debug, Clone)]
enum Step {
    Park(Wanted),
    /// One record's arrivals are noted.
    Note(Vec<(u32, u64, &'static str)>),
    /// The task that wakes polls runs.
    Wake,
    /// The nth of those parked so far is taken back.
    Take(usize),
}

fn tag() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c", "Aa", "BB"])
}

fn step() -> impl Strategy<Value = Step> {
    let wanted = (0..2u32, 0..8u64, prop::collection::btree_set(tag(), 0..4));
    prop_oneof![
        4 => wanted.prop_map(|(queue, offset, tags)| Step::Park(Wanted { queue, offset, tags })),
        3 => prop::collection::vec((0..3u32, 0..8u64, tag()), 1..5).prop_map(Step::Note),
        2 => Just(Step::Wake),
        1 => (0..20usize).prop_map(Step::Take),
    ]
}

/// The scan that the indexes replaced.
fn scan(parked: &[(usize, Wanted)], arrived: &[(u32, u64, &'static str)]) -> BTreeSet<usize> {
    let answers = |wanted: &Wanted, (queue, offset, tag): &(u32, u64, &str)| {
        let takes = wanted.tags.is_empty() || wanted.tags.iter().any(|one| tags_code(one) == tags_code(tag));
        wanted.queue == *queue && *offset >= wanted.offset && takes
    };
    let woken = parked.iter().filter(|(_, wanted)| arrived.iter().any(|arrival| answers(wanted, arrival)));
    woken.map(|(number, _)| *number).collect()
}

/// Runs the steps; the polls woken, and those that a scan wakes, each time the task runs.
fn run(steps: Vec<Step>, limits: arrivals::Limits) -> Vec<(BTreeSet<usize>, BTreeSet<usize>)> {
    let (table, now) = (PollTable::with_arrivals(1_000, Arrivals::with_limits(limits)), Instant::now());
    let (mut parked, mut tickets, mut arrived): (Vec<(usize, Wanted)>, Vec<Ticket>, Vec<_>) =
        Default::default();
    let mut woken = Vec::new();
    for step in steps.into_iter().chain([Step::Wake]) {
        match step {
            Step::Park(wanted) => {
                // What arrived before is seen by the look after parking, and is not waited for.
                let before = scan(&[(0, wanted.clone())], &arrived);
                let tags: Vec<&str> = wanted.tags.iter().copied().collect();
                let number = tickets.len();
                let poll = Poll {
                    filter: filter(&tags.join("||")),
                    ..poll(wanted.queue, wanted.offset, 1, now, number)
                };
                let ticket = park(&table, poll, now);
                tickets.push(ticket);
                if before.is_empty() {
                    parked.push((number, wanted));
                } else {
                    drop(table.take(ticket));
                }
            }
            Step::Note(record) => {
                let arrivals: Vec<Arrival> = record
                    .iter()
                    .map(|(queue, offset, tag)| arrival(*queue, *offset, tags_code(tag)))
                    .collect();
                table.note(&arrivals);
                arrived.extend(record);
            }
            Step::Wake => {
                let found: BTreeSet<usize> = payloads(wake(&table)).into_iter().collect();
                let expected = scan(&parked, &arrived);
                parked.retain(|(number, _)| !found.contains(number));
                arrived.clear();
                woken.push((found, expected));
            }
            Step::Take(number) => {
                if let Some(ticket) = tickets.get(number) {
                    drop(table.take(*ticket));
                    parked.retain(|(parked, _)| *parked != number);
                }
            }
        }
    }
    drop(table.drain());
    assert!(table.state.lock().is_empty(), "polls.I3");
    woken
}

proptest! {
    /// `polls.I1`, and that no other poll is touched.
    #[test]
    fn polls_i1_arrivals_wake_what_a_scan_of_all_polls_wakes(steps in prop::collection::vec(step(), 0..60)) {
        for (woken, expected) in run(steps, arrivals::Limits::default()) {
            prop_assert_eq!(woken, expected);
        }
    }

    /// Where the hand-over overflows, more polls are woken, and none too few.
    #[test]
    fn polls_i1_an_overflow_of_arrivals_loses_no_wake_up(
        steps in prop::collection::vec(step(), 0..60),
        tags in 1..3usize,
        entries in 1..5usize,
    ) {
        for (woken, expected) in run(steps, arrivals::Limits { tags, entries }) {
            prop_assert!(woken.is_superset(&expected), "{:?} of {:?}", woken, expected);
        }
    }
}

/// Polls are parked and messages arrive at the same time, on different threads; each poll looks once after it was parked.
#[test]
fn polls_i1_no_poll_that_is_parked_while_its_message_arrives_is_forgotten() {
    const ROUNDS: u64 = 20_000;
    let table = PollTable::new(1_000);
    // The queue: how many messages readers can see.
    let visible = Mutex::new(0_u64);
    let applies = || {
        for offset in 0..ROUNDS {
            *visible.lock() = offset + 1;
            table.note(&[arrival(0, offset, 0)]);
        }
    };
    let mut offset = 0;
    std::thread::scope(|scope| {
        scope.spawn(applies);
        while offset < ROUNDS {
            let now = Instant::now();
            let (ticket, _) = table.park(poll(0, offset, 1, now, ()), now);
            if *visible.lock() > offset {
                drop(table.take(ticket));
            } else {
                let deadline = now + Duration::from_secs(60);
                while wake(&table).is_empty() {
                    assert!(
                        Instant::now() < deadline,
                        "polls.I1: the poll for offset {offset} was not woken"
                    );
                    std::thread::yield_now();
                }
            }
            offset = *visible.lock();
        }
    });
}
