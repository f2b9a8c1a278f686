//! Topics, groups and orderly locks.

use folio_broker::settings::Settings;
use folio_protocol::body::{
    self, ExponentialRetryPolicy, GroupRetryPolicy, LockBatchRequest, LockBatchResponse, MessageQueue,
    RetryPolicyKind, SubscriptionGroupConfig, TopicConfig, TopicConfigList, TopicList,
};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::flags::PermissionBits;
use folio_protocol::frame::Frame;
use folio_protocol::header::{
    CreateTopicHeader, DeleteGroupHeader, DeleteTopicHeader, GetGroupConfigHeader, NoHeader,
    SendMessageHeader,
};

use crate::node::{Client, Node, expect, message, send_header, with_body};

fn create(topic: &str, attributes: Option<&str>) -> CreateTopicHeader {
    CreateTopicHeader {
        write_queue_nums: 5,
        attributes: attributes.map(str::to_owned),
        ..CreateTopicHeader::new(topic, 6, PermissionBits::READ_WRITE)
    }
}

fn delete(topic: &str) -> DeleteTopicHeader {
    DeleteTopicHeader { topic: topic.into(), cluster_name: None }
}

async fn topics(client: &mut Client) -> Vec<String> {
    let answer = client.ask(RequestCode::GetAllTopicListFromNameserver, &NoHeader).await;
    expect(&answer, ResponseCode::Success);
    body::decode::<TopicList>(&answer.body).expect("a list").topic_list
}

#[tokio::test]
async fn a_topic_is_created_changed_listed_and_deleted() {
    let node = Node::start().await;
    let mut client = node.client().await;
    expect(
        &client.ask(RequestCode::UpdateAndCreateTopic, &create("orders", Some("+message.type=FIFO"))).await,
        ResponseCode::Success,
    );
    let topic = node.broker.topic("orders").expect("the topic");
    assert_eq!((topic.read_queues, topic.write_queues, topic.attributes.len()), (6, 5, 1));
    let wider = CreateTopicHeader { write_queue_nums: 6, ..create("orders", None) };
    expect(&client.ask(RequestCode::UpdateAndCreateTopic, &wider).await, ResponseCode::Success);
    let topic = node.broker.topic("orders").expect("the topic");
    assert_eq!((topic.write_queues, topic.attributes.len()), (6, 1), "attributes stay");
    assert!(topics(&mut client).await.contains(&"orders".to_owned()));
    expect(&client.ask(RequestCode::DeleteTopicInBroker, &delete("orders")).await, ResponseCode::Success);
    assert!(
        node.broker.topic("orders").is_none() && !topics(&mut client).await.contains(&"orders".to_owned())
    );
}

#[tokio::test]
async fn several_topics_are_created_together_or_not_at_all() {
    let node = Node::start().await;
    let mut client = node.client().await;
    let list = |names: &[&str]| {
        let config = |name: &&str| TopicConfig { topic_name: (*name).to_owned(), ..TopicConfig::default() };
        let body = body::encode(&TopicConfigList { topic_config_list: names.iter().map(config).collect() });
        Frame {
            code: RequestCode::UpdateAndCreateTopicList.code(),
            body: body.expect("a body"),
            ..Frame::default()
        }
    };
    expect(&client.call(list(&["one", "a.b"])).await, ResponseCode::InvalidParameter);
    assert!(node.broker.topic("one").is_none());
    expect(&client.call(list(&["one", "two"])).await, ResponseCode::Success);
    assert!(node.broker.topic("one").is_some() && node.broker.topic("two").is_some());
}

#[tokio::test]
async fn illegal_and_system_topics_are_neither_created_nor_deleted() {
    let node = Node::start().await;
    let mut client = node.client().await;
    for name in ["a.b", "TBW102", "rmq_sys_x"] {
        expect(
            &client.ask(RequestCode::UpdateAndCreateTopic, &create(name, None)).await,
            ResponseCode::InvalidParameter,
        );
    }
    for name in [" ", "TBW102", "RMQ_SYS_TRANS_HALF_TOPIC"] {
        expect(
            &client.ask(RequestCode::DeleteTopicInBroker, &delete(name)).await,
            ResponseCode::InvalidParameter,
        );
    }
}

#[tokio::test]
async fn a_topic_created_again_goes_on_after_its_old_offsets() {
    let node = Node::start().await;
    let mut client = node.client().await;
    client.send("orders", "", "old").await;
    expect(&client.ask(RequestCode::DeleteTopicInBroker, &delete("orders")).await, ResponseCode::Success);
    expect(&client.call(message(&send_header("orders", ""), "new")).await, ResponseCode::Success);
    assert_eq!(node.broker.group.queues().bounds("orders", 0), Some((1, 2)));
}

/// Before: it was accepted and forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_policy_that_was_accepted_was_forgotten() {
    let nodes = Node::cluster(3).await;
    let policy = GroupRetryPolicy {
        kind: RetryPolicyKind::Exponential,
        exponential_retry_policy: Some(ExponentialRetryPolicy { initial: 7, max: 900, multiplier: 3 }),
        customized_retry_policy: None,
    };
    let config = SubscriptionGroupConfig {
        group_name: "g".to_owned(),
        group_retry_policy: policy.clone(),
        ..SubscriptionGroupConfig::default()
    };
    let request = with_body(RequestCode::UpdateAndCreateSubscriptionGroup, &config);
    expect(&nodes[0].client().await.call(request).await, ResponseCode::Success);
    for node in &nodes {
        let mut client = node.client().await;
        let group = GetGroupConfigHeader { group: "g".into() };
        let answer = client.ask(RequestCode::GetSubscriptionGroupConfig, &group).await;
        expect(&answer, ResponseCode::Success);
        let known: SubscriptionGroupConfig = body::decode(&answer.body).expect("a group");
        assert_eq!((known.group_retry_policy, known.attributes.len()), (policy.clone(), 0));
    }
}

#[tokio::test]
async fn a_topic_takes_messages_of_its_kind_where_that_is_checked() {
    let delayed = "DELAY\u{1}18\u{2}";
    for (checks_message_type, refused) in
        [(true, ResponseCode::MessageIllegal), (false, ResponseCode::Success)]
    {
        let node = Node::start_with(Settings { checks_message_type, ..Settings::default() }).await;
        node.reach_level().await;
        let mut client = node.client().await;
        let topic = create("orders", Some("+message.type=DELAY"));
        expect(&client.ask(RequestCode::UpdateAndCreateTopic, &topic).await, ResponseCode::Success);
        for (properties, code) in [(delayed, ResponseCode::Success), ("", refused)] {
            let head =
                SendMessageHeader { properties: Some(properties.to_owned()), ..send_header("orders", "") };
            expect(&client.call(message(&head, "hello")).await, code);
        }
    }
}

#[tokio::test]
async fn a_deleted_group_is_gone_with_its_offsets() {
    let node = Node::start().await;
    let mut client = node.client_of_group().await;
    assert!(node.broker.group.state().group("g").is_some());
    let gone = DeleteGroupHeader { group_name: "g".into(), clean_offset: true };
    expect(&client.ask(RequestCode::DeleteSubscriptionGroup, &gone).await, ResponseCode::Success);
    assert!(node.broker.group.state().group("g").is_none());
}

#[tokio::test]
async fn a_queue_is_locked_for_one_client_at_a_time() {
    let node = Node::start().await;
    let mut client = node.client().await;
    expect(
        &client.ask(RequestCode::UpdateAndCreateTopic, &create("orders", None)).await,
        ResponseCode::Success,
    );
    let queue =
        |queue_id| MessageQueue { broker_name: "b1".to_owned(), queue_id, topic: "orders".to_owned() };
    let request = |code: RequestCode, client_id: &str, queues: &[i32]| {
        let wish = LockBatchRequest {
            consumer_group: "g".to_owned(),
            client_id: client_id.to_owned(),
            only_this_broker: false,
            mq_set: queues.iter().map(|number| queue(*number)).collect(),
        };
        with_body(code, &wish)
    };
    let held =
        |answer: Frame| body::decode::<LockBatchResponse>(&answer.body).expect("queues").lock_ok_mq_set;
    assert_eq!(
        held(client.call(request(RequestCode::LockBatchMq, "a", &[0, 1])).await),
        [queue(0), queue(1)]
    );
    assert_eq!(held(client.call(request(RequestCode::LockBatchMq, "b", &[1, 2])).await), [queue(2)]);
    expect(&client.call(request(RequestCode::UnlockBatchMq, "a", &[1])).await, ResponseCode::Success);
    assert_eq!(held(client.call(request(RequestCode::LockBatchMq, "b", &[0, 1])).await), [queue(1)]);
}
