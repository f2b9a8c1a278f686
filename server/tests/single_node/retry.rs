//! Messages a consumer could not handle: sent back, retried, dead.

use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;
use folio_protocol::header::{ConsumerSendBackHeader, SendMessageHeader, SendMessageResponseHeader};
use folio_protocol::ids::OffsetMessageId;

use crate::node::{Node, expect, header, message, messages, pull_header, send_header};

fn back(position: u64, delay_level: i32, max_reconsume_times: Option<i32>) -> ConsumerSendBackHeader {
    ConsumerSendBackHeader {
        offset: position as i64,
        group: "g".into(),
        delay_level,
        origin_msg_id: None,
        origin_topic: Some("orders".into()),
        unit_mode: false,
        max_reconsume_times,
        broker_name: None,
    }
}

fn position(answer: &Frame) -> (String, u64) {
    let id = header::<SendMessageResponseHeader>(answer).msg_id;
    let position = id.parse::<OffsetMessageId>().expect("an id").position;
    (id, position)
}

#[tokio::test]
async fn a_message_sent_back_comes_again_and_then_is_dead() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    let (id, first) = position(&client.send("orders", "TagA", "hard").await);
    expect(
        &client.ask(RequestCode::ConsumerSendMessageBack, &back(first, 0, Some(1))).await,
        ResponseCode::Success,
    );
    let pulled = client.ask(RequestCode::PullMessage, &pull_header("%RETRY%g", 0)).await;
    expect(&pulled, ResponseCode::Success);
    let retried = messages(&pulled.body);
    let retry = retried.first().expect("the retry");
    assert_eq!((retry.topic(), retry.body(), retry.reconsume_times()), ("%RETRY%g", &b"hard"[..], 1));
    assert_eq!((retry.property("RETRY_TOPIC"), retry.property("TAGS")), (Some("orders"), Some("TagA")));
    assert_eq!(retry.property("ORIGIN_MESSAGE_ID"), Some(id.as_str()));

    let second = retry.physical_offset();
    expect(
        &client.ask(RequestCode::ConsumerSendMessageBack, &back(second, 0, Some(1))).await,
        ResponseCode::Success,
    );
    let pulled = client.ask(RequestCode::PullMessage, &pull_header("%DLQ%g", 0)).await;
    expect(&pulled, ResponseCode::Success);
    let dead = messages(&pulled.body);
    let letter = dead.first().expect("the dead letter");
    assert_eq!((letter.topic(), letter.reconsume_times()), ("%DLQ%g", 2));
    assert_eq!(
        (letter.property("RETRY_TOPIC"), letter.property("ORIGIN_MESSAGE_ID")),
        (Some("orders"), Some(id.as_str()))
    );
}

#[tokio::test]
async fn a_negative_level_is_a_dead_letter_at_once() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    let (_, first) = position(&client.send("orders", "", "hopeless").await);
    expect(
        &client.ask(RequestCode::ConsumerSendMessageBack, &back(first, -1, None)).await,
        ResponseCode::Success,
    );
    assert_eq!(node.broker.group.queues().bounds("%DLQ%g", 0), Some((0, 1)));
    assert_eq!(node.broker.group.queues().bounds("%RETRY%g", 0), None);
}

#[tokio::test]
async fn what_cannot_be_sent_back_is_refused() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    let (_, first) = position(&client.send("orders", "", "x").await);
    let answer = client.ask(RequestCode::ConsumerSendMessageBack, &back(first + 1, 0, None)).await;
    expect(&answer, ResponseCode::SystemError);
    let unknown = ConsumerSendBackHeader { group: "?".into(), ..back(first, 0, None) };
    let answer = client.ask(RequestCode::ConsumerSendMessageBack, &unknown).await;
    expect(&answer, ResponseCode::SubscriptionGroupNotExist);
}

#[tokio::test]
async fn a_retry_the_consumer_sends_itself_is_stored_or_dead_by_its_count() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    let retry = |times: i32| SendMessageHeader {
        properties: Some("UNIQ_KEY\u{1}U\u{2}DELAY\u{1}4\u{2}RETRY_TOPIC\u{1}orders\u{2}".to_owned()),
        reconsume_times: Some(times),
        max_reconsume_times: Some(3),
        ..send_header("%RETRY%g", "")
    };
    expect(&client.call(message(&retry(3), "again")).await, ResponseCode::Success);
    expect(&client.call(message(&retry(4), "dead")).await, ResponseCode::Success);
    let pulled = client.ask(RequestCode::PullMessage, &pull_header("%RETRY%g", 0)).await;
    let retried = messages(&pulled.body);
    assert_eq!(
        retried.iter().map(|message| (message.body(), message.property("DELAY"))).collect::<Vec<_>>(),
        [(&b"again"[..], None)]
    );
    let pulled = client.ask(RequestCode::PullMessage, &pull_header("%DLQ%g", 0)).await;
    assert_eq!(messages(&pulled.body).first().map(|message| message.body()), Some(&b"dead"[..]));
}
