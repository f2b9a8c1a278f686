//! A send under the `UNIQ_KEY` of an earlier one: a client's retry is stored once, a message sent again on purpose each time.

use std::cell::Cell;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use folio_protocol::batch;
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;
use folio_protocol::header::{ConsumerSendBackHeader, SendMessageHeader, SendMessageResponseHeader};
use folio_protocol::ids::OffsetMessageId;
use folio_raft::proposal::PROMPT;

use crate::node::{Client, Node, expect, header, message, send_header};

/// Message id, queue and offset of a message that was stored.
type Place = (String, i32, i64);

/// A SEND under a unique key of the test's choice.
fn keyed(key: &str, tag: &str) -> SendMessageHeader {
    let properties = Some(format!("UNIQ_KEY\u{1}{key}\u{2}TAGS\u{1}{tag}\u{2}"));
    SendMessageHeader { properties, ..send_header("orders", "") }
}

fn to_queue(key: &str, queue_id: i32) -> Frame {
    message(&SendMessageHeader { queue_id, ..keyed(key, "t") }, "hello")
}

fn place(answer: &Frame) -> Place {
    expect(answer, ResponseCode::Success);
    let sent: SendMessageResponseHeader = header(answer);
    (sent.msg_id, sent.queue_id, sent.queue_offset)
}

thread_local! {
    /// The slowest answer of the test on this thread.
    static SLOWEST: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

fn note_answer(sent: Instant) {
    SLOWEST.set(SLOWEST.get().max(sent.elapsed()));
}

async fn stored(client: &mut Client, request: Frame) -> Place {
    let sent = Instant::now();
    let place = place(&client.call(request).await);
    note_answer(sent);
    place
}

/// Sends all and then takes the answers, in the order of the requests.
async fn pipelined(client: &mut Client, requests: &[Frame]) -> Vec<Place> {
    let (mut opaques, sent) = (Vec::new(), Instant::now());
    for request in requests {
        opaques.push(client.put(request.clone()).await);
    }
    let mut answers = Vec::new();
    for _ in requests {
        answers.push(client.take().await);
    }
    note_answer(sent);
    answers.sort_by_key(|answer| opaques.iter().position(|opaque| *opaque == answer.opaque));
    answers.iter().map(place).collect()
}

fn count(node: &Node, topic: &str) -> u64 {
    let queues = node.broker.group.queues();
    (0..8).filter_map(|queue| queues.bounds(topic, queue)).map(|(min, max)| max - min).sum()
}

/// What a scenario stores if each of its messages was answered promptly: on a machine so busy that one was not it starts
/// over, under another key.
async fn promptly<S: AsyncFnMut(&str)>(node: &Node, mut scenario: S) -> u64 {
    for attempt in 0..100 {
        let before = count(node, "orders");
        SLOWEST.set(Duration::ZERO);
        scenario(&format!("K{attempt}")).await;
        if SLOWEST.get() < PROMPT / 2 {
            return count(node, "orders") - before;
        }
    }
    panic!("no answers within {PROMPT:?}");
}

/// A node with the topic, and a client of it.
async fn ready() -> (Node, Client) {
    let node = Node::start().await;
    let mut client = node.client().await;
    client.send("orders", "", "creates the topic").await;
    (node, client)
}

#[tokio::test]
async fn dedup_i5_one_object_sent_ten_times_is_ten_messages() {
    let (node, mut client) = ready().await;
    let sync = promptly(&node, async |key| {
        for _ in 0..10 {
            stored(&mut client, to_queue(key, 0)).await;
        }
    });
    assert_eq!(sync.await, 10, "one after the other");
    let requests = |key: &str| vec![to_queue(key, 0); 10];
    let mut places = Vec::new();
    let at_once = promptly(&node, async |key| {
        places = pipelined(&mut client, &requests(&format!("A{key}"))).await;
    });
    assert_eq!(at_once.await, 10, "at once");
    assert!(places.is_sorted_by_key(|(_, _, offset)| *offset), "in their order: {places:?}");
    let oneway = promptly(&node, async |key| {
        for _ in 0..10 {
            client.put(to_queue(&format!("O{key}"), 0).oneway()).await;
        }
        // Its answer comes when all before it are stored, too.
        stored(&mut client, to_queue(&format!("O{key}"), 0)).await;
    });
    assert_eq!(oneway.await, 11, "oneway, and one that is answered");
    assert_eq!(node.broker.group.status().repeats, 0);
}

#[tokio::test]
async fn dedup_i5_one_object_sent_to_each_queue_is_stored_in_each() {
    let (node, mut client) = ready().await;
    let stored = promptly(&node, async |key| {
        for queue in [0, 1, 2, 3, 3, 0] {
            let (_, stored_in, _) = stored(&mut client, to_queue(key, queue)).await;
            assert_eq!(stored_in, queue, "the queue that was asked for");
        }
    });
    assert_eq!(stored.await, 6);
}

#[tokio::test]
async fn dedup_i5_a_body_that_changes_to_and_fro_is_stored_each_time() {
    let (node, mut client) = ready().await;
    let stored = promptly(&node, async |key| {
        for body in ["ON", "OFF"].into_iter().cycle().take(10) {
            stored(&mut client, message(&keyed(key, "t"), body)).await;
        }
    });
    assert_eq!(stored.await, 10);
}

/// A batch under these keys.
fn list(keys: &[String]) -> Frame {
    let mut body = BytesMut::new();
    for key in keys {
        let properties = format!("UNIQ_KEY\u{1}{key}\u{2}");
        batch::append(&mut body, 1, b"text", properties.as_bytes()).expect("short enough");
    }
    let head = SendMessageHeader { batch: true, ..send_header("orders", "") };
    Frame::request(RequestCode::SendBatchMessage, &head, body.freeze())
}

fn keys(prefix: &str) -> Vec<String> {
    (0..5).map(|number| format!("{prefix}-{number}")).collect()
}

#[tokio::test]
async fn dedup_i5_a_list_of_five_sent_three_times_is_fifteen_messages() {
    let (node, mut client) = ready().await;
    let stored = promptly(&node, async |key| {
        for _ in 0..3 {
            let (id, ..) = stored(&mut client, list(&keys(key))).await;
            assert_eq!(id.split(',').count(), 5);
        }
    });
    assert_eq!(stored.await, 15);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dedup_i5_by_whichever_connection_it_comes() {
    let (node, mut client) = ready().await;
    let mut other = node.client().await;
    let stored = promptly(&node, async |key| {
        for _ in 0..3 {
            stored(&mut client, to_queue(key, 0)).await;
            stored(&mut other, to_queue(key, 0)).await;
        }
        // Both at once, while the other one's is under way.
        for client in [&mut client, &mut other] {
            client.put(to_queue(key, 0)).await;
        }
        for client in [&mut client, &mut other] {
            place(&client.take().await);
        }
    });
    assert_eq!(stored.await, 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dedup_i5_by_whichever_node_it_comes() {
    let nodes = Node::cluster(3).await;
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(node.client().await);
    }
    clients[0].send("orders", "", "creates the topic").await;
    let stored = promptly(&nodes[0], async |key| {
        for turn in [1, 0, 2, 1, 1] {
            stored(&mut clients[turn], to_queue(key, 0)).await;
        }
    });
    assert_eq!(stored.await, 5, "one after the other");
    let at_once = promptly(&nodes[0], async |key| {
        for client in &mut clients {
            client.put(to_queue(&format!("A{key}"), 0)).await;
        }
        for client in &mut clients {
            place(&client.take().await);
        }
    });
    assert_eq!(at_once.await, 3, "at once");
}

#[tokio::test]
async fn the_same_key_with_another_body_or_tag_is_another_message() {
    let (node, mut client) = ready().await;
    for (at, (tag, body)) in [("t", "one"), ("t", "two"), ("u", "one")].into_iter().enumerate() {
        let (_, _, offset) = stored(&mut client, message(&keyed("A", tag), body)).await;
        assert_eq!(offset, 1 + at as i64, "{tag} {body}");
    }
    drop(client);
    let (_, _, offset) = stored(&mut node.client().await, message(&keyed("A", "t"), "two")).await;
    assert_eq!((offset, count(&node, "orders")), (2, 4), "each is remembered under its own content");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_again_after_its_connection_died_gets_the_firsts_place() {
    let (node, mut client) = ready().await;
    let first = stored(&mut client, to_queue("A", 0)).await;
    drop(client);
    let mut client = node.client().await;
    let elsewhere = SendMessageHeader { queue_id: 3, ..keyed("A", "t") };
    assert_eq!(stored(&mut client, message(&elsewhere, "hello")).await, first);
    assert_eq!((count(&node, "orders"), node.broker.group.status().repeats), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_sent_again_after_its_connection_died_gets_all_its_places() {
    let (node, mut client) = ready().await;
    let first = stored(&mut client, list(&keys("A"))).await;
    assert_eq!((first.2, first.0.split(',').count()), (1, 5));
    drop(client);
    let mut client = node.client().await;
    assert_eq!(stored(&mut client, list(&keys("A"))).await, first);
    let mut changed = keys("A");
    changed[4] = "B".to_owned();
    let (_, _, offset) = stored(&mut client, list(&changed)).await;
    assert_eq!((offset, count(&node, "orders")), (6, 11));
}

/// No request has it.
const UNKNOWN_CODE: i32 = 77_777;

/// Waits until the node has taken in what a connection has sent: it is read in order, so who answers this has.
async fn taken(client: &mut Client) {
    client.put(Frame { code: UNKNOWN_CODE, ..Frame::default() }).await;
    assert_eq!(client.take().await.code, ResponseCode::RequestCodeNotSupported as i32);
}

/// The disk takes longer than a client waits: it sends the message again, by the same connection and by another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_again_while_the_answer_is_late_shares_it() {
    let (node, mut client) = ready().await;
    let mut other = node.client().await;
    node.disk.hang_syncs(true);
    let first = client.put(to_queue("A", 0)).await;
    taken(&mut client).await;
    tokio::time::sleep(PROMPT + Duration::from_millis(50)).await;
    client.put(to_queue("A", 1)).await;
    other.put(to_queue("A", 2)).await;
    taken(&mut client).await;
    taken(&mut other).await;
    node.disk.hang_syncs(false);
    let (one, two) = (client.take().await, client.take().await);
    let place_of_first = place(if one.opaque == first { &one } else { &two });
    for answer in [one, two, other.take().await] {
        assert_eq!(place(&answer), place_of_first);
    }
    assert_eq!((count(&node, "orders"), node.broker.group.status().repeats), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_sent_again_after_a_late_answer_is_a_retry_and_the_next_one_is_not() {
    let (node, mut client) = ready().await;
    node.disk.hang_syncs(true);
    client.put(to_queue("A", 0)).await;
    taken(&mut client).await;
    tokio::time::sleep(PROMPT + Duration::from_millis(50)).await;
    node.disk.hang_syncs(false);
    let late = place(&client.take().await);
    let retried = Instant::now();
    assert_eq!(stored(&mut client, to_queue("A", 0)).await, late);
    let in_time = retried.elapsed() < PROMPT;
    let next = stored(&mut client, to_queue("A", 0)).await;
    assert!(next != late || !in_time, "the retry was answered promptly");
}

/// Ten that came at once are ten, however long the disk takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dedup_i5_one_object_sent_ten_times_at_once_is_ten_messages_on_a_slow_disk() {
    let (node, mut client) = ready().await;
    node.disk.hang_syncs(true);
    let started = Instant::now();
    for _ in 0..10 {
        client.put(to_queue("A", 0)).await;
    }
    taken(&mut client).await;
    let sent = started.elapsed();
    tokio::time::sleep(PROMPT + Duration::from_millis(50)).await;
    node.disk.hang_syncs(false);
    for _ in 0..10 {
        place(&client.take().await);
    }
    assert!(sent >= PROMPT || count(&node, "orders") == 11, "{} of 11", count(&node, "orders"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_through_another_node_finds_the_first_one() {
    let nodes = Node::cluster(3).await;
    let mut client = nodes[0].client().await;
    client.send("orders", "", "creates the topic").await;
    for round in 0..6 {
        let key = format!("K{round}");
        let mut first = nodes[round % 3].client().await;
        let place = stored(&mut first, to_queue(&key, 0)).await;
        drop(first);
        let again = stored(&mut nodes[(round + 1) % 3].client().await, to_queue(&key, 1)).await;
        assert_eq!(again, place);
    }
    assert_eq!(count(&nodes[0], "orders"), 7);
}

#[tokio::test]
async fn a_redelivered_message_keeps_its_key_and_is_stored_each_time() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    let retry = SendMessageHeader { topic: "%RETRY%g".into(), ..keyed("A", "t") };
    for offset in 0..2 {
        assert_eq!(stored(&mut client, message(&retry, "hello")).await.2, offset);
    }
}

#[tokio::test]
async fn a_message_sent_back_twice_is_one_retry() {
    let node = crate::delayed::node().await;
    let mut client = node.client_of_group().await;
    let (id, ..) = stored(&mut client, message(&keyed("A", "t"), "hard")).await;
    let position = |id: &str| id.parse::<OffsetMessageId>().expect("an id").position as i64;
    let back = |offset: i64, delay_level: i32| {
        let header = ConsumerSendBackHeader {
            offset,
            group: "g".into(),
            delay_level,
            origin_msg_id: None,
            origin_topic: Some("orders".into()),
            unit_mode: false,
            max_reconsume_times: None,
            broker_name: None,
        };
        Frame::request(RequestCode::ConsumerSendMessageBack, &header, Bytes::new())
    };
    let came = async |retries: u64| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while count(&node, "%RETRY%g") < retries {
            assert!(Instant::now() < deadline, "{retries} retries do not come");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(node.broker.pending_timers("%RETRY%g").await.expect("readable"), 0);
    };
    for request in [back(position(&id), 1), back(position(&id), 1)] {
        expect(&client.call(request).await, ResponseCode::Success);
    }
    came(1).await;
    // When it has come, too.
    expect(&client.call(back(position(&id), 1)).await, ResponseCode::Success);
    came(1).await;
    // What was delivered again and is sent back again is the second retry.
    let queues = node.broker.group.queues();
    let retries = || -> Vec<i64> {
        let units = (0..8).filter_map(|queue| queues.units("%RETRY%g", queue, 0, 9).ok()).flatten();
        units.map(|unit| unit.position as i64).collect()
    };
    let first = *retries().first().expect("the retry");
    for request in [back(first, 1), back(first, 1)] {
        expect(&client.call(request).await, ResponseCode::Success);
    }
    came(2).await;
    assert_eq!(count(&node, "%RETRY%g"), 2);
    let second = *retries().iter().find(|position| **position != first).expect("the second retry");
    for request in [back(second, -1), back(second, -1)] {
        expect(&client.call(request).await, ResponseCode::Success);
    }
    assert_eq!(count(&node, "%DLQ%g"), 1);
}
