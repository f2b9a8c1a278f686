//! What `mqadmin` asks of topics, groups and clients: `topicStatus`, `consumerProgress`, `consumerConnection` and what follows from them.

use folio_protocol::body::{ConsumerData, HeartbeatData, ProducerData, SubscriptionData};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;
use folio_protocol::header::{
    GetConsumeStatsHeader, GetConsumerConnectionsHeader, GetProducerConnectionsHeader, GroupHeader,
    GroupTopicHeader, TopicHeader, UpdateConsumerOffsetHeader,
};
use serde_json::{Value, json};

use crate::node::{Client, Node, expect, with_body};

/// A group's member, and a producer, that says so over this connection.
async fn register(client: &mut Client) {
    let subscription =
        SubscriptionData { topic: "orders".into(), sub_string: "*".into(), ..SubscriptionData::default() };
    let consumer = ConsumerData {
        group_name: "g".into(),
        subscription_data_set: vec![subscription],
        ..ConsumerData::default()
    };
    let data = HeartbeatData {
        client_id: "client-1".into(),
        producer_data_set: vec![ProducerData { group_name: "p".into() }],
        consumer_data_set: vec![consumer],
        ..HeartbeatData::default()
    };
    expect(&client.call(with_body(RequestCode::HeartBeat, &data)).await, ResponseCode::Success);
}

async fn commit(client: &mut Client, offset: i64) {
    let header = UpdateConsumerOffsetHeader {
        consumer_group: "g".into(),
        topic: "orders".into(),
        queue_id: 0,
        commit_offset: offset,
    };
    expect(&client.ask(RequestCode::UpdateConsumerOffset, &header).await, ResponseCode::Success);
}

/// The body as JSON: keys that are objects become text.
fn table(answer: &Frame) -> Value {
    expect(answer, ResponseCode::Success);
    let body = std::str::from_utf8(&answer.body).expect("text");
    let queue = |id: u32| format!(r#"{{"brokerName":"b1","queueId":{id},"topic":"orders"}}"#);
    let body = (0..16).fold(body.to_owned(), |body, id| body.replace(&queue(id), &format!("\"{id}\"")));
    serde_json::from_str(&body).expect("JSON")
}

fn body(answer: &Frame) -> Value {
    expect(answer, ResponseCode::Success);
    serde_json::from_slice(&answer.body).expect("JSON")
}

#[tokio::test]
async fn figures_of_a_topic_say_what_is_in_each_queue_and_how_fast_it_came() {
    let node = Node::start().await;
    let mut client = node.client().await;
    let question = TopicHeader { topic: "orders".into() };
    expect(&client.ask(RequestCode::GetTopicStatsInfo, &question).await, ResponseCode::TopicNotExist);
    for number in 0..6 {
        client.send("orders", "", &number.to_string()).await;
    }
    let stats = table(&client.ask(RequestCode::GetTopicStatsInfo, &question).await);
    let queue = &stats["offsetTable"]["0"];
    assert_eq!((&queue["minOffset"], &queue["maxOffset"]), (&json!(0), &json!(6)));
    assert!(queue["lastUpdateTimestamp"].as_i64().unwrap() > 1_700_000_000_000);
    let empty = json!({ "lastUpdateTimestamp": 0, "maxOffset": 0, "minOffset": 0 });
    assert_eq!(stats["offsetTable"]["3"], empty, "{stats}");
    assert_eq!(stats["topicPutTps"], json!(0.1), "six in the last minute");
}

#[tokio::test]
async fn figures_of_a_group_say_how_far_it_has_come_in_each_queue() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    for number in 0..6 {
        client.send("orders", "", &number.to_string()).await;
    }
    let of = |topic: Option<&str>| GetConsumeStatsHeader {
        consumer_group: "g".into(),
        topic: topic.map(Into::into),
    };
    let nothing = table(&client.ask(RequestCode::GetConsumeStats, &of(None)).await);
    assert_eq!(nothing["offsetTable"], json!({}), "it consumes nothing yet");
    commit(&mut client, 4).await;
    for topic in [None, Some(""), Some("orders")] {
        let stats = table(&client.ask(RequestCode::GetConsumeStats, &of(topic)).await);
        let queue = &stats["offsetTable"]["0"];
        let offsets =
            ["brokerOffset", "consumerOffset", "pullOffset"].map(|name| queue[name].as_u64().unwrap());
        assert_eq!(offsets, [6, 4, 4], "{stats}");
        assert!(queue["lastTimestamp"].as_i64().unwrap() > 1_700_000_000_000);
        assert_eq!(stats["offsetTable"]["3"]["brokerOffset"], json!(0));
    }
    let other = table(&client.ask(RequestCode::GetConsumeStats, &of(Some("bills"))).await);
    assert_eq!(other["offsetTable"], json!({}));
}

#[tokio::test]
async fn who_is_connected_and_who_consumes_what_is_known_at_every_node() {
    let nodes = Node::cluster(3).await;
    let mut client = nodes[0].client_of_group().await;
    client.send("orders", "", "one").await;
    commit(&mut client, 1).await;
    let offline = GetConsumerConnectionsHeader { consumer_group: "g".into() };
    let answer = client.ask(RequestCode::GetConsumerConnectionList, &offline).await;
    expect(&answer, ResponseCode::ConsumerNotOnline);
    let nobody = GetProducerConnectionsHeader { producer_group: "p".into() };
    let answer = client.ask(RequestCode::GetProducerConnectionList, &nobody).await;
    expect(&answer, ResponseCode::SystemError);
    let mut member = nodes[0].client().await;
    register(&mut member).await;
    for node in &nodes {
        while node.broker.clients.group("g").is_none() || node.broker.clients.producers("p").is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let mut client = node.client().await;
        let group = body(&client.ask(RequestCode::GetConsumerConnectionList, &offline).await);
        assert_eq!(group["connectionSet"][0]["clientId"], json!("client-1"));
        assert!(group["connectionSet"][0]["clientAddr"].as_str().unwrap().starts_with("127.0.0.1:"));
        assert_eq!(group["subscriptionTable"]["orders"]["subString"], json!("*"));
        assert_eq!(group["consumeType"], json!("CONSUME_PASSIVELY"));
        let producers = body(&client.ask(RequestCode::GetProducerConnectionList, &nobody).await);
        assert_eq!(producers["connectionSet"][0]["clientId"], json!("client-1"));
        let groups = TopicHeader { topic: "orders".into() };
        let groups = body(&client.ask(RequestCode::QueryTopicConsumeByWho, &groups).await);
        assert_eq!(groups, json!({ "groupList": ["g"] }));
        let topics = GroupHeader { group: "g".into() };
        let topics = body(&client.ask(RequestCode::QueryTopicsByConsumer, &topics).await);
        assert_eq!(topics["topicList"], json!(["orders"]));
        let subscription = GroupTopicHeader { group: "g".into(), topic: Some("orders".into()) };
        let subscription = body(&client.ask(RequestCode::QuerySubscriptionByConsumer, &subscription).await);
        assert_eq!(subscription["subscriptionData"]["topic"], json!("orders"));
        // Served at any node: the leader is asked.
        let stats = GetConsumeStatsHeader { consumer_group: "g".into(), topic: None };
        let stats = table(&client.ask(RequestCode::GetConsumeStats, &stats).await);
        assert_eq!(stats["offsetTable"]["0"]["consumerOffset"], json!(1), "{stats}");
    }
}
