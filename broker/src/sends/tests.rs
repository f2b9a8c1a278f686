//! The account of one connection, and of many.

use bytes::Bytes;
use folio_protocol::message;

use super::*;

const OK: Outcome = Outcome::Stored;
const UNKNOWN: Outcome = Outcome::Unknown;
const BUSY: Outcome = Outcome::NotStored;

#[derive(Debug)]
struct Message(&'static str, &'static str);

impl Content for Message {
    fn print(&self) -> Option<Print> {
        let properties = format!("UNIQ_KEY\u{1}{}\u{2}", self.0);
        Some(Print::of_message("orders", properties.as_bytes(), self.1.as_bytes()))
    }
}

fn send(key: &'static str, body: &'static str) -> Arc<dyn Content> {
    Arc::new(Message(key, body))
}

/// A repeat that comes now, of what is stored at 100.
fn question(key: &'static str, body: &str) -> Question {
    Question {
        client: ([10, 0, 0, 7], 4_000).into(),
        same_connection: true,
        number: None,
        position: Some(100),
        topic: "orders".into(),
        key: Bytes::from_static(key.as_bytes()),
        body_bytes: body.len(),
        body_crc: message::body_crc(body.as_bytes()),
        sent_by: Instant::now(),
        repeated: Instant::now(),
        repeat: None,
    }
}

fn begin(sends: &Sends, content: &Arc<dyn Content>) -> Begun {
    sends.begin(content.clone(), Instant::now(), 100)
}

async fn pass(ms: u64) {
    tokio::time::advance(Duration::from_millis(ms)).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_promptly_leaves_nothing_behind() {
    let sends = Sends::new();
    for number in 0..100 {
        let begun = begin(&sends, &send("A", "one"));
        assert_eq!(begun, Begun { number, doubts: false });
        pass(PROMPT.as_millis() as u64 - 1).await;
        assert_eq!(sends.knows(&question("A", "one")), Knows::Settled, "too young to be given up");
        sends.end(number, OK);
        assert_eq!(sends.knows(&question("A", "one")), Knows::Settled);
    }
    let state = sends.state.lock();
    assert_eq!((state.unanswered.len(), state.doubts.len(), state.first), (0, 0, 100));
}

#[tokio::test(start_paused = true)]
async fn sends_i1_a_send_is_in_doubt_from_when_it_is_given_up() {
    let sends = Sends::new();
    let young = question("A", "one");
    let number = begin(&sends, &send("A", "one")).number;
    pass(1_000).await;
    assert_eq!(sends.knows(&young), Knows::Settled, "that one had come when it was young");
    assert_eq!(sends.knows(&question("A", "one")), Knows::Doubtful, "not answered");
    assert!(begin(&sends, &send("B", "one")).doubts);
    sends.end(number, OK);
    assert_eq!(sends.knows(&question("A", "one")), Knows::Doubtful, "answered late");
    assert!(begin(&sends, &send("B", "one")).doubts);
    pass(61_000).await;
    assert_eq!(sends.knows(&question("A", "one")), Knows::Settled, "long ago");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_a_doubt_at_once_and_a_refusal_is_none() {
    let sends = Sends::new();
    sends.end(begin(&sends, &send("A", "one")).number, UNKNOWN);
    sends.end(begin(&sends, &send("B", "one")).number, BUSY);
    assert_eq!(sends.knows(&question("A", "one")), Knows::Doubtful);
    assert_eq!(sends.knows(&question("B", "one")), Knows::Settled);
}

#[tokio::test(start_paused = true)]
async fn sends_i2_a_doubt_is_of_one_message_only() {
    let sends = Sends::new();
    let unknown = begin(&sends, &send("A", "one"));
    sends.end(unknown.number, UNKNOWN);
    let other = begin(&sends, &send("A", "two"));
    let asked = |question: Question| sends.knows(&question);
    assert_eq!(asked(question("A", "two")), Knows::Settled, "another body");
    assert_eq!(asked(question("B", "one")), Knows::Settled, "another key");
    let before = Question { position: Some(99), ..question("A", "one") };
    assert_eq!(asked(before), Knows::Settled, "stored before the doubtful one came");
    let by_number = |number| Question { number: Some(number), position: None, ..question("A", "one") };
    assert_eq!(asked(by_number(unknown.number)), Knows::Doubtful);
    assert_eq!(asked(by_number(other.number)), Knows::Settled);
    pass(1_000).await;
    assert_eq!(asked(by_number(other.number)), Knows::Doubtful, "not answered");
}

#[tokio::test(start_paused = true)]
async fn a_prompt_answer_to_the_retry_ends_the_doubt() {
    let sends = Sends::new();
    sends.end(begin(&sends, &send("A", "one")).number, UNKNOWN);
    sends.end(begin(&sends, &send("B", "one")).number, UNKNOWN);
    sends.end(begin(&sends, &send("A", "one")).number, OK);
    assert_eq!(sends.knows(&question("A", "one")), Knows::Settled);
    assert_eq!(sends.knows(&question("B", "one")), Knows::Doubtful);
}

#[tokio::test(start_paused = true)]
async fn a_closed_connection_and_a_younger_one_know_nothing() {
    let table = SendTable::default();
    let sends = Arc::new(Sends::new());
    let client = question("A", "one").client;
    assert_eq!(table.knows(&question("A", "one")), Knows::Gone, "it sent nothing yet");
    table.list(client, &sends);
    table.list(client, &sends);
    assert_eq!(table.knows(&question("A", "one")), Knows::Settled);
    let earlier = Question { sent_by: Instant::now() - Duration::from_millis(1), ..question("A", "one") };
    assert_eq!(table.knows(&earlier), Knows::Gone, "another connection had the same port");
    sends.close();
    assert_eq!(table.knows(&question("A", "one")), Knows::Gone);
    table.closed(client, &sends);
    let next = Arc::new(Sends::new());
    table.list(client, &next);
    assert_eq!(table.knows(&question("A", "one")), Knows::Settled);
    table.closed(client, &next);
    assert_eq!(table.knows(&question("A", "one")), Knows::Gone);
}

#[tokio::test(start_paused = true)]
async fn answers_in_any_order_and_a_bounded_number_of_doubts() {
    let sends = Sends::new();
    let all: Vec<u64> =
        (0..DOUBTS_MAX as u64 + 10).map(|_| begin(&sends, &send("A", "one")).number).collect();
    all.iter().rev().for_each(|number| sends.end(*number, UNKNOWN));
    let state = sends.state.lock();
    assert_eq!((state.unanswered.len(), state.doubts.len()), (0, DOUBTS_MAX));
}
