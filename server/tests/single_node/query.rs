//! Messages by key and by unique key, as stock clients and `mqadmin` ask for them.

use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::flags::PermissionBits;
use folio_protocol::frame::Frame;
use folio_protocol::header::{
    CreateTopicHeader, DeleteTopicHeader, QueryMessageHeader, QueryMessageResponseHeader, SendMessageHeader,
};

use crate::node::{Client, Node, expect, header, message, messages, send_header};

fn question(key: &str, max_num: i32) -> QueryMessageHeader {
    QueryMessageHeader {
        topic: "orders".into(),
        key: key.to_owned(),
        max_num,
        begin_timestamp: 0,
        end_timestamp: i64::MAX,
        unique_key_query: false,
    }
}

async fn send(client: &mut Client, topic: &str, unique: &str, keys: &str, body: &str) {
    let properties = Some(format!("KEYS\u{1}{keys}\u{2}UNIQ_KEY\u{1}{unique}\u{2}"));
    let head = SendMessageHeader { properties, ..send_header(topic, "") };
    expect(&client.call(message(&head, body)).await, ResponseCode::Success);
}

fn bodies(answer: &Frame) -> Vec<String> {
    let bodies = messages(&answer.body).into_iter();
    bodies.map(|message| String::from_utf8_lossy(message.body()).into_owned()).collect()
}

async fn ask(client: &mut Client, question: &QueryMessageHeader) -> Frame {
    client.ask(RequestCode::QueryMessage, question).await
}

#[tokio::test]
async fn messages_are_found_by_their_keys_the_newest_first() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    for number in 0..5 {
        let body = format!("body {number}");
        send(&mut client, "orders", &format!("U-{number}"), &format!("all k{number}"), &body).await;
    }
    send(&mut client, "bills", "U-9", "all k9", "another topic").await;
    let answer = ask(&mut client, &question("all", 32)).await;
    expect(&answer, ResponseCode::Success);
    assert_eq!(bodies(&answer), ["body 4", "body 3", "body 2", "body 1", "body 0"]);
    let head: QueryMessageResponseHeader = header(&answer);
    assert!(head.index_last_update_timestamp > 0 && head.index_last_update_phyoffset > 0);
    assert_eq!(bodies(&ask(&mut client, &question("all", 2)).await), ["body 4", "body 3"]);
    assert_eq!(bodies(&ask(&mut client, &question("k3", 32)).await), ["body 3"]);
    let unique = QueryMessageHeader { unique_key_query: true, ..question("U-1", 0) };
    assert_eq!(bodies(&ask(&mut client, &unique).await), ["body 1"]);
    for nothing in [question("k", 32), question("all k3", 32), question("k9", 32), question("all", 0)] {
        let answer = ask(&mut client, &nothing).await;
        expect(&answer, ResponseCode::QueryNotFound);
        assert!(answer.body.is_empty() && answer.remark.is_some());
    }
    // Stored when is what counts, not made when.
    let all = ask(&mut client, &question("all", 32)).await;
    let stored: Vec<i64> = messages(&all.body).iter().map(|message| message.store_timestamp()).collect();
    let (first, last) = (stored[4], stored[0]);
    let of = |begin_timestamp, end_timestamp| QueryMessageHeader {
        begin_timestamp,
        end_timestamp,
        ..question("all", 32)
    };
    assert_eq!(bodies(&ask(&mut client, &of(first, last)).await).len(), 5);
    for outside in [of(0, first - 1), of(last + 1, i64::MAX), of(last, first - 1)] {
        expect(&ask(&mut client, &outside).await, ResponseCode::QueryNotFound);
    }
}

/// `min_offsets.I1`
#[tokio::test]
async fn messages_of_a_deleted_topic_are_not_found_by_their_keys() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    send(&mut client, "orders", "U-1", "k", "old").await;
    let delete = DeleteTopicHeader { topic: "orders".into(), cluster_name: None };
    expect(&client.ask(RequestCode::DeleteTopicInBroker, &delete).await, ResponseCode::Success);
    expect(&ask(&mut client, &question("k", 32)).await, ResponseCode::QueryNotFound);
    let create = CreateTopicHeader::new("orders", 4, PermissionBits::READ_WRITE);
    expect(&client.ask(RequestCode::UpdateAndCreateTopic, &create).await, ResponseCode::Success);
    expect(&ask(&mut client, &question("k", 32)).await, ResponseCode::QueryNotFound);
    send(&mut client, "orders", "U-2", "k", "new").await;
    assert_eq!(bodies(&ask(&mut client, &question("k", 32)).await), ["new"]);
}

#[tokio::test]
async fn a_follower_answers_and_asks_the_leader_for_what_it_does_not_know() {
    let nodes = Node::cluster(3).await;
    let mut client = nodes[0].client_of_group().await;
    send(&mut client, "orders", "U-1", "k", "one").await;
    for node in &nodes {
        let mut client = node.client().await;
        assert_eq!(bodies(&ask(&mut client, &question("k", 32)).await), ["one"]);
        expect(&ask(&mut client, &question("no", 32)).await, ResponseCode::QueryNotFound);
    }
}
