//! PULL: every row of its table of results, and pulls that are held.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use folio_broker::cold_reads::ColdReadsConfig;
use folio_broker::settings::Settings;
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::flags::pull_sys_flag;
use folio_protocol::frame::Frame;
use folio_protocol::header::{
    OffsetResponseHeader, PullMessageHeader, PullMessageResponseHeader, QueryConsumerOffsetHeader,
};

use crate::node::{Client, Node, expect, header, messages, pull_header};

/// Pulls and expects code, next offset and queue bounds.
async fn pulls(
    client: &mut Client,
    wish: &PullMessageHeader,
    code: ResponseCode,
    next: i64,
    bounds: (i64, i64),
) -> Frame {
    let answer = client.ask(RequestCode::PullMessage, wish).await;
    expect(&answer, code);
    let head: PullMessageResponseHeader = header(&answer);
    assert_eq!(head.next_begin_offset, next, "{wish:?}");
    assert_eq!((head.min_offset, head.max_offset), bounds, "{wish:?}");
    assert_eq!(head.suggest_which_broker_id, 0);
    answer
}

pub(crate) fn held(topic: &str, offset: i64, timeout_ms: i64) -> PullMessageHeader {
    let head = pull_header(topic, offset);
    PullMessageHeader {
        sys_flag: head.sys_flag | pull_sys_flag::SUSPEND,
        suspend_timeout_millis: timeout_ms,
        ..head
    }
}

pub(crate) fn request(head: &PullMessageHeader) -> Frame {
    Frame::request(RequestCode::PullMessage, head, bytes::Bytes::new())
}

#[tokio::test]
async fn every_place_of_an_offset_has_its_answer() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    for tag in ["a", "a", "b", "b"] {
        client.send("orders", tag, "x").await;
    }
    let all = |offset| pull_header("orders", offset);
    let found = pulls(&mut client, &all(1), ResponseCode::Success, 4, (0, 4)).await;
    assert_eq!(messages(&found.body).len(), 3);
    pulls(&mut client, &all(4), ResponseCode::PullNotFound, 4, (0, 4)).await;
    pulls(&mut client, &all(5), ResponseCode::PullOffsetMoved, 4, (0, 4)).await;
    pulls(&mut client, &all(-1), ResponseCode::PullOffsetMoved, 0, (0, 4)).await;
    let empty = |offset| PullMessageHeader { queue_id: 3, ..all(offset) };
    pulls(&mut client, &empty(0), ResponseCode::PullNotFound, 0, (0, 0)).await;
    pulls(&mut client, &empty(9), ResponseCode::PullOffsetMoved, 0, (0, 0)).await;

    let tagged = |tag: &str, offset| PullMessageHeader { subscription: Some(tag.to_owned()), ..all(offset) };
    let found = pulls(&mut client, &tagged("b", 0), ResponseCode::Success, 4, (0, 4)).await;
    assert_eq!(messages(&found.body).len(), 2);
    pulls(&mut client, &tagged("c", 0), ResponseCode::PullRetryImmediately, 4, (0, 4)).await;
    let two = PullMessageHeader { max_msg_nums: 2, ..all(0) };
    pulls(&mut client, &two, ResponseCode::Success, 2, (0, 4)).await;
    let lite = client.ask(RequestCode::LitePullMessage, &all(0)).await;
    expect(&lite, ResponseCode::Success);
}

#[tokio::test]
async fn pulls_that_may_not_be_served_are_refused() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "x").await;
    let orders = || pull_header("orders", 0);
    let refused = [
        (
            PullMessageHeader { consumer_group: "?".into(), ..orders() },
            ResponseCode::SubscriptionGroupNotExist,
        ),
        (pull_header("none", 0), ResponseCode::TopicNotExist),
        (PullMessageHeader { queue_id: 4, ..orders() }, ResponseCode::InvalidParameter),
        (PullMessageHeader { sys_flag: 0, ..orders() }, ResponseCode::SubscriptionNotExist),
        (
            PullMessageHeader { expression_type: Some("SQL92".to_owned()), ..orders() },
            ResponseCode::SystemError,
        ),
    ];
    for (head, code) in refused {
        let answer = client.ask(RequestCode::PullMessage, &head).await;
        assert_eq!(answer.code, code.code(), "{head:?}: {:?}", answer.remark);
    }
}

#[tokio::test]
async fn a_pull_of_a_group_nobody_created_creates_it() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "x").await;
    let head = PullMessageHeader { consumer_group: "newcomers".into(), ..pull_header("orders", 0) };
    expect(&client.ask(RequestCode::PullMessage, &head).await, ResponseCode::Success);
    assert!(node.broker.has_group("newcomers"));
}

#[tokio::test]
async fn a_held_pull_is_answered_by_the_next_message() {
    let node = Node::start().await;
    let (mut consumer, mut producer) = (node.client_of_group().await, node.client().await);
    producer.send("orders", "", "old").await;
    let opaque = consumer.put(request(&held("orders", 1, 20_000))).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let started = Instant::now();
    producer.send("orders", "", "new").await;
    let answer = consumer.take().await;
    assert_eq!((answer.opaque, answer.code), (opaque, 0));
    assert_eq!(messages(&answer.body).first().map(|message| message.body()), Some(&b"new"[..]));
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(node.broker.polls.is_empty());
}

#[tokio::test]
async fn a_held_pull_of_a_queue_without_messages_is_answered_by_the_first() {
    let node = Node::start().await;
    let (mut consumer, mut producer) = (node.client_of_group().await, node.client().await);
    producer.send("orders", "", "creates the topic").await;
    let head = PullMessageHeader { queue_id: 1, ..held("orders", 0, 20_000) };
    consumer.put(request(&head)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let to =
        folio_protocol::header::SendMessageHeader { queue_id: 1, ..crate::node::send_header("orders", "") };
    expect(&producer.call(crate::node::message(&to, "first")).await, ResponseCode::Success);
    expect(&consumer.take().await, ResponseCode::Success);
}

#[tokio::test]
async fn a_held_pull_waits_for_its_tag_and_at_most_its_time() {
    let node = Node::start().await;
    let (mut consumer, mut producer) = (node.client_of_group().await, node.client().await);
    producer.send("orders", "a", "creates the topic").await;
    let time = Duration::from_millis(600);
    let mut offset = 1;
    loop {
        let wish = PullMessageHeader { subscription: Some("b".to_owned()), ..held("orders", offset, 600) };
        let started = Instant::now();
        consumer.put(request(&wish)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        producer.send("orders", "a", "not for it").await;
        let in_time = started.elapsed() < time / 2;
        offset += 1;
        let answer = consumer.take().await;
        assert!(started.elapsed() >= time, "{:?}", started.elapsed());
        // On a machine that stalls it may have been over before.
        if in_time {
            // It has looked at the message that was not for it: the next pull starts after it.
            expect(&answer, ResponseCode::PullRetryImmediately);
            assert_eq!(header::<PullMessageResponseHeader>(&answer).next_begin_offset, offset);
            break;
        }
    }
    let started = Instant::now();
    let answer = consumer.call(request(&held("orders", offset, 300))).await;
    expect(&answer, ResponseCode::PullNotFound);
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn messages_that_race_with_held_pulls_wake_every_one() {
    let node = Node::start().await;
    let (mut consumer, mut producer) = (node.client_of_group().await, node.client().await);
    producer.send("orders", "", "0").await;
    for offset in 1..=100 {
        consumer.put(request(&held("orders", offset, 25_000))).await;
        producer.send("orders", "", "x").await;
        let answer = consumer.take().await;
        expect(&answer, ResponseCode::Success);
        assert_eq!(header::<PullMessageResponseHeader>(&answer).next_begin_offset, offset + 1);
    }
}

#[tokio::test]
async fn held_pulls_go_with_their_connection() {
    let node = Node::start().await;
    let mut consumer = node.client_of_group().await;
    consumer.send("orders", "", "x").await;
    consumer.put(request(&held("orders", 1, 20_000))).await;
    for expected in [1, 0] {
        let mut tries = 0;
        while node.broker.polls.len() != expected {
            tries += 1;
            assert!(tries < 3_000, "{} polls, expected {expected}", node.broker.polls.len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if expected == 1 {
            consumer = node.client().await;
        }
    }
    drop(consumer);
}

/// Each wrote an entry of the log, on every node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_pulls_past_the_end_wrote_a_thousand_entries() {
    const PULLS: usize = 1_000;
    let nodes = Node::cluster(3).await;
    let mut client = nodes[0].client_of_group().await;
    client.send("orders", "", "one").await;
    let last = || nodes[0].broker.group.status().last.map_or(0, |id| id.index);
    let before = last();
    for _ in 0..PULLS {
        client.put(request(&pull_header("orders", 1_000_000))).await;
    }
    for _ in 0..PULLS {
        let answer = client.take().await;
        expect(&answer, ResponseCode::PullOffsetMoved);
        assert_eq!(header::<PullMessageResponseHeader>(&answer).next_begin_offset, 1);
    }
    assert!(last() < before + 10, "{} entries", last() - before);
}

/// A leader that cannot prove that it leads must not say where a queue ends: another one may have taken messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_quorum_sends_no_consumer_back() {
    let mut nodes = Node::cluster(3).await;
    let mut client = nodes[0].client_of_group().await;
    client.send("orders", "", "one").await;
    for follower in nodes.drain(1..) {
        follower.broker.group.shutdown().await;
    }
    let answer = client.ask(RequestCode::PullMessage, &pull_header("orders", 9)).await;
    if answer.code == ResponseCode::PullNotFound.code() {
        assert_eq!(header::<PullMessageResponseHeader>(&answer).next_begin_offset, 9);
    } else {
        expect(&answer, ResponseCode::ServiceNotAvailable);
    }
}

#[tokio::test]
async fn a_large_backlog_is_pulled_whole_and_in_order() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    let body = "y".repeat(100_000);
    for _ in 0..8 {
        client.send("orders", "", &body).await;
    }
    let (mut next, mut seen) = (0, Vec::new());
    while next < 8 {
        let answer = client.ask(RequestCode::PullMessage, &pull_header("orders", next)).await;
        expect(&answer, ResponseCode::Success);
        assert!(answer.body.len() <= 256 * 1024, "{}", answer.body.len());
        seen.extend(messages(&answer.body).iter().map(|message| message.queue_offset()));
        next = header::<PullMessageResponseHeader>(&answer).next_begin_offset;
    }
    assert_eq!(seen, (0..8).collect::<Vec<_>>());
}

/// Pulls a queue from its start and expects the offsets of all its `count` messages, in order.
async fn pulls_all(client: &mut Client, count: i64) {
    let mut next = 0;
    while next < count {
        let answer = client.ask(RequestCode::PullMessage, &pull_header("orders", next)).await;
        expect(&answer, ResponseCode::Success);
        for message in messages(&answer.body) {
            assert_eq!(message.queue_offset() as i64, next);
            assert_eq!(message.body(), format!("message {next}").as_bytes());
            next += 1;
        }
        assert_eq!(header::<PullMessageResponseHeader>(&answer).next_begin_offset, next);
    }
}

#[tokio::test]
async fn a_pull_that_meets_rotten_units_is_answered_once_they_are_mended() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    for number in 0..150 {
        client.send("orders", "", &format!("message {number}")).await;
    }
    // The newest ones are in memory.
    for (offset, count) in [(0, 1), (40, 7), (0, 90)] {
        node.rot_units("orders", offset, count);
        pulls_all(&mut client, 150).await;
    }
    assert_eq!(node.broker.group.status().mended_units, 1 + 7 + 90);
    assert_eq!(node.broker.group.status().damaged_units, 0);
}

#[tokio::test]
async fn a_group_without_an_offset_starts_at_the_first_message_even_when_its_unit_is_rotten() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    for number in 0..100 {
        client.send("orders", "", &format!("message {number}")).await;
    }
    node.rot_units("orders", 0, 1);
    let query = QueryConsumerOffsetHeader {
        consumer_group: "g".into(),
        topic: "orders".into(),
        queue_id: 0,
        set_zero_if_not_found: None,
    };
    let answer = client.ask(RequestCode::QueryConsumerOffset, &query).await;
    expect(&answer, ResponseCode::Success);
    assert_eq!(header::<OffsetResponseHeader>(&answer).offset, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_with_rotten_units_gives_every_message_as_it_was_sent() {
    let nodes = Node::cluster(3).await;
    let mut producer = nodes[0].client_of_group().await;
    for number in 0..150 {
        producer.send("orders", "", &format!("message {number}")).await;
    }
    while nodes[1].broker.group.queues().bounds("orders", 0) != Some((0, 150)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut client = nodes[1].client().await;
    for (offset, count) in [(0, 90), (10, 3)] {
        nodes[1].rot_units("orders", offset, count);
        pulls_all(&mut client, 150).await;
    }
}

/// However slow the pace of old messages is beside writers, each pull of them is answered, and with what was asked for.
#[tokio::test]
async fn old_messages_are_pulled_beside_writers_however_slow_the_pace() {
    let cold_reads = ColdReadsConfig { recent_bytes: 0, floor_bytes: 1, at_once: 1 };
    let node = Node::start_with(Settings { cold_reads, ..Settings::default() }).await;
    let mut reader = node.client_of_group().await;
    for number in 0..8 {
        reader.send("orders", "", &number.to_string()).await;
    }
    let mut writer = node.client().await;
    let (body, done) = ("x".repeat(1 << 20), AtomicBool::new(false));
    let write = async {
        while !done.load(Ordering::Relaxed) {
            writer.send("noise", "", &body).await;
        }
    };
    let read = async {
        for round in 0..2 {
            let wishes =
                (0..8).map(|offset| PullMessageHeader { max_msg_nums: 1, ..pull_header("orders", offset) });
            let mut asked = BTreeMap::new();
            for wish in wishes {
                asked.insert(reader.put(request(&wish)).await, wish.queue_offset);
            }
            while !asked.is_empty() {
                let answer = reader.take().await;
                expect(&answer, ResponseCode::Success);
                let offset = asked.remove(&answer.opaque).expect("asked once, answered once");
                assert_eq!(messages(&answer.body)[0].body(), offset.to_string().as_bytes(), "round {round}");
            }
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(write, read);
}
