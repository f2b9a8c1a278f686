//! SEND: stored and answered, or refused with a code and a text, never a closed connection.

use bytes::BytesMut;
use folio_protocol::batch;
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;
use folio_protocol::header::{SendMessageHeader, SendMessageResponseHeader, ViewMessageHeader};
use folio_protocol::ids::OffsetMessageId;

use crate::node::{Node, expect, header, message, messages, pull_header, send_header};

#[tokio::test]
async fn a_message_is_stored_pulled_and_viewed() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    let answer = client.send("orders", "TagA", "hello").await;
    let sent: SendMessageResponseHeader = header(&answer);
    assert_eq!((sent.queue_id, sent.queue_offset), (0, 0));
    assert!(sent.transaction_id.as_deref().is_some_and(|key| key.starts_with('U')), "its unique key");
    assert_eq!(
        (answer.ext.get("MSG_REGION"), answer.ext.get("TRACE_ON")),
        (Some("DefaultRegion"), Some("true"))
    );

    let pulled = client.ask(RequestCode::PullMessage, &pull_header("orders", 0)).await;
    expect(&pulled, ResponseCode::Success);
    let stored = messages(&pulled.body);
    let stored = stored.first().expect("one message");
    assert_eq!((stored.topic(), stored.body(), stored.flag()), ("orders", &b"hello"[..], 7));
    assert_eq!((stored.property("TAGS"), stored.property("CLUSTER")), (Some("TagA"), Some("c1")));
    assert_eq!(stored.store_host(), node.address);

    let id: OffsetMessageId = sent.msg_id.parse().expect("an id");
    assert_eq!((id.host, id.position), (node.address, stored.physical_offset()));
    let view = |position: u64| ViewMessageHeader { offset: position as i64, topic: None };
    let viewed = client.ask(RequestCode::ViewMessageById, &view(id.position)).await;
    expect(&viewed, ResponseCode::Success);
    assert_eq!(viewed.body, stored.bytes());
    for wrong in [id.position + 1, id.position - 1, id.position + 4, 1 << 40, u64::MAX] {
        expect(&client.ask(RequestCode::ViewMessageById, &view(wrong)).await, ResponseCode::SystemError);
    }
}

#[tokio::test]
async fn a_batch_has_consecutive_offsets_and_one_id_each() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "before").await;
    let mut body = BytesMut::new();
    for text in ["one", "two", "three"] {
        batch::append(&mut body, 1, text.as_bytes(), b"UNIQ_KEY\x01U\x02").expect("short enough");
    }
    let head = SendMessageHeader { batch: true, ..send_header("orders", "") };
    let answer = client.call(Frame::request(RequestCode::SendBatchMessage, &head, body.freeze())).await;
    expect(&answer, ResponseCode::Success);
    let sent: SendMessageResponseHeader = header(&answer);
    assert_eq!((sent.queue_offset, sent.msg_id.split(',').count()), (1, 3));
    let pulled = client.ask(RequestCode::PullMessage, &pull_header("orders", 1)).await;
    let stored = messages(&pulled.body);
    let bodies: Vec<_> = stored.iter().map(|message| (message.queue_offset(), message.body())).collect();
    assert_eq!(bodies, [(1, &b"one"[..]), (2, b"two"), (3, b"three")]);
}

#[tokio::test]
async fn many_senders_to_a_new_topic_wait_for_one_creation() {
    let node = Node::start().await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(node.client().await);
    }
    for client in &mut clients {
        for _ in 0..5 {
            client.put(message(&send_header("new", ""), "x")).await;
        }
    }
    for client in &mut clients {
        for _ in 0..5 {
            expect(&client.take().await, ResponseCode::Success);
        }
    }
    assert_eq!(node.broker.topic("new").map(|topic| topic.write_queues), Some(4));
    assert_eq!(node.broker.group.queues().bounds("new", 0), Some((0, 40)));
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_and_the_connection_lives() {
    let node = Node::start().await;
    let mut client = node.client().await;
    client.send("orders", "", "creates the topic").await;
    let orders = || send_header("orders", "");
    let with = |properties: &str| SendMessageHeader { properties: Some(properties.to_owned()), ..orders() };
    let long = format!("k\u{1}{}\u{2}", "v".repeat(32_767));
    let refused = [
        (send_header("a.b", ""), "x", ResponseCode::InvalidParameter),
        (SendMessageHeader { queue_id: 4, ..orders() }, "x", ResponseCode::InvalidParameter),
        (
            SendMessageHeader { default_topic: "none".into(), ..send_header("?", "") },
            "x",
            ResponseCode::InvalidParameter,
        ),
        (
            SendMessageHeader { default_topic: "none".into(), ..send_header("none", "") },
            "x",
            ResponseCode::TopicNotExist,
        ),
        (send_header("SCHEDULE_TOPIC_XXXX", ""), "x", ResponseCode::NoPermission),
        (orders(), "", ResponseCode::MessageIllegal),
        (with(&long), "x", ResponseCode::MessageIllegal),
        (with("DELAY\u{1}soon\u{2}"), "x", ResponseCode::MessageIllegal),
        (with("TIMER_DELAY_SEC\u{1}259201\u{2}"), "x", ResponseCode::MessageIllegal),
        (with("TRAN_MSG\u{1}true\u{2}"), "x", ResponseCode::MessageIllegal),
        (SendMessageHeader { sys_flag: 4, ..orders() }, "x", ResponseCode::MessageIllegal),
        (SendMessageHeader { batch: true, ..orders() }, "no batch", ResponseCode::MessageIllegal),
        (send_header("%RETRY%nobody", ""), "x", ResponseCode::SubscriptionGroupNotExist),
    ];
    for (head, body, code) in refused {
        let answer = client.call(message(&head, body)).await;
        assert_eq!(answer.code, code.code(), "{head:?}: {:?}", answer.remark);
        assert!(answer.remark.is_some_and(|remark| !remark.is_empty()));
    }
    let too_long = "x".repeat(4 * 1024 * 1024 + 1);
    expect(&client.call(message(&orders(), &too_long)).await, ResponseCode::MessageIllegal);
    expect(&client.call(message(&orders(), &too_long[1..])).await, ResponseCode::Success);
    expect(
        &client
            .call(Frame::request(RequestCode::SendMessageV2, &folio_protocol::header::NoHeader, "x".into()))
            .await,
        ResponseCode::InvalidParameter,
    );
    assert_eq!(node.broker.group.queues().bounds("orders", 0), Some((0, 2)));
}

#[tokio::test]
async fn a_oneway_send_is_stored_and_not_answered() {
    let node = Node::start().await;
    let mut client = node.client().await;
    client.put(message(&send_header("orders", ""), "oneway").oneway()).await;
    // The answer that comes is the one to the second send.
    let answer = client.call(message(&send_header("orders", ""), "second")).await;
    expect(&answer, ResponseCode::Success);
    let mut bounds = None;
    for _ in 0..1_500 {
        bounds = node.broker.group.queues().bounds("orders", 0);
        if bounds == Some((0, 2)) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(bounds, Some((0, 2)));
}

#[tokio::test]
async fn a_message_without_a_unique_key_gets_one() {
    let node = Node::start().await;
    let mut client = node.client().await;
    let head = SendMessageHeader { properties: None, queue_id: -1, ..send_header("orders", "") };
    let sent: SendMessageResponseHeader = header(&client.call(message(&head, "x")).await);
    assert_eq!(sent.transaction_id.map(|id| id.len()), Some(32));
    assert!((0..4).contains(&sent.queue_id), "the server picks a queue: {}", sent.queue_id);
}
