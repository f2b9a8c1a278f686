//! Who may administer: what changes or reveals the cluster is an operator's, known by the connection.

use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use folio_protocol::body::{self, SubscriptionGroupConfig, TopicConfig, TopicConfigList, TopicConfigTable};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::flags::PermissionBits;
use folio_protocol::frame::Frame;
use folio_protocol::header::{CreateTopicHeader, DeleteTopicHeader, NoHeader};
use folio_server::handlers::members::{ADD_NODE, AddNode, REMOVE_NODE, RemoveNode};
use folio_server::handlers::node_status::{NODE, NODE_STATUS, NodeAt, NodeStatus};
use folio_state::FEATURE_LEVEL;

use crate::node::{Client, Node, Operators, expect, pull_header, with_body};

fn delete(topic: &str) -> Frame {
    let header = DeleteTopicHeader { topic: topic.into(), cluster_name: None };
    Frame::request(RequestCode::DeleteTopicInBroker, &header, bytes::Bytes::new())
}

fn create(topic: &str, queues: u32, perm: u32) -> Frame {
    let header = CreateTopicHeader::new(topic, queues, PermissionBits(perm));
    Frame::request(RequestCode::UpdateAndCreateTopic, &header, bytes::Bytes::new())
}

fn own(code: i32, body: &impl serde::Serialize) -> Frame {
    Frame { code, body: body::encode(body).expect("a body"), ..Frame::default() }
}

fn status_of(node: Option<u64>) -> Frame {
    let mut frame = Frame { code: NODE_STATUS, ..Frame::default() };
    if let Some(node) = node {
        frame.ext.insert_display(NODE, node);
    }
    frame
}

async fn refused(client: &mut Client, request: Frame) {
    let code = request.code;
    let answer = client.call(request).await;
    expect(&answer, ResponseCode::NoPermission);
    let remark = answer.remark.unwrap_or_default();
    assert!(remark.contains("listen.admin_from") && remark.contains("127.0.0.1"), "{code}: {remark}");
}

/// Whoever reached a port could take the followers out of the group, and delete every topic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admin_i1_a_client_of_any_node_could_delete_a_topic_and_remove_a_node() {
    let nodes = Node::cluster_of(3, Operators::Nowhere).await;
    for node in [&nodes[0], &nodes[1]] {
        let mut client = node.client().await;
        client.send("orders", "", "one").await;
        refused(&mut client, delete("orders")).await;
        refused(&mut client, own(REMOVE_NODE, &RemoveNode { id: 3 })).await;
        let at = NodeAt {
            broker: "127.0.0.1:1".into(),
            namesrv: "127.0.0.1:2".into(),
            raft: "127.0.0.1:3".into(),
        };
        refused(&mut client, own(ADD_NODE, &AddNode { id: 4, at })).await;
        refused(&mut client, status_of(None)).await;
        refused(&mut client, status_of(Some(2))).await;
        for code in [
            RequestCode::DeleteTopicInNamesrv,
            RequestCode::DeleteSubscriptionGroup,
            RequestCode::GetAllTopicConfig,
            RequestCode::GetAllTopicListFromNameserver,
            RequestCode::UpdateBrokerConfig,
            RequestCode::InvokeBrokerToResetOffset,
        ] {
            refused(&mut client, Frame { code: code.code(), ..Frame::default() }).await;
        }
        // What clients do goes on, and nothing was changed.
        let answer = client.call(create("mine", 4, 6)).await;
        expect(&answer, ResponseCode::Success);
        client.send("orders", "", "two").await;
        let status = node.broker.group.status();
        assert_eq!(status.voters.len(), 3);
    }
}

/// Operators are known by their connection, at any port or at their own, and at any node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admin_i2_an_operator_is_accepted_by_address_or_by_port_and_brought_to_the_leader() {
    let nodes = Node::cluster_of(3, Operators::At("127.0.0.9/32")).await;
    for (node, topic) in [(&nodes[0], "one"), (&nodes[1], "two")] {
        let mut client = node.client().await;
        client.send(topic, "", "x").await;
        refused(&mut client, delete(topic)).await;
        let mut by_address = node.client_from("127.0.0.9").await;
        expect(&by_address.call(delete(topic)).await, ResponseCode::Success);
        client.send(topic, "", "x").await;
        let mut by_port = node.operator().await;
        expect(&by_port.call(delete(topic)).await, ResponseCode::Success);
        // A follower says what it has applied, and may be behind.
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let list = by_port.ask(RequestCode::GetAllTopicConfig, &NoHeader).await;
            let table: TopicConfigTable = body::decode(&list.body).expect("a table");
            if !table.topic_config_table.contains_key(topic) {
                break;
            }
            assert!(Instant::now() < deadline, "{topic} is listed still");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// On three machines the command line reaches one node as an operator; that one asks the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_of_one_node_learns_of_the_others_and_changes_the_members_through_it() {
    let nodes = Node::cluster_of(3, Operators::Nowhere).await;
    let ids: Vec<u64> = nodes.iter().map(|node| node.broker.node_id()).collect();
    let mut operator = nodes[1].operator().await;
    for id in &ids {
        let answer = operator.call(status_of(Some(*id))).await;
        expect(&answer, ResponseCode::Success);
        assert_eq!(body::decode::<NodeStatus>(&answer.body).expect("a status").node_id, *id);
    }
    let answer = operator.call(status_of(Some(77))).await;
    expect(&answer, ResponseCode::ServiceNotAvailable);
    assert!(answer.remark.as_ref().is_some_and(|remark| remark.contains("node 77")), "{:?}", answer.remark);
    // Not through the node that leaves: its group ends with it.
    let answer = operator.call(own(REMOVE_NODE, &RemoveNode { id: ids[2] })).await;
    expect(&answer, ResponseCode::Success);
    let mut status = nodes[0].broker.group.watch();
    let left = status.wait_for(|status| !status.voters.contains(&ids[2]));
    drop(tokio::time::timeout(Duration::from_secs(30), left).await.expect("it has left").expect("a status"));
}

/// What a frame says of its sender counts for nothing, and a node that forwards vouches for each request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admin_i2_no_frame_makes_its_sender_an_operator() {
    let nodes = Node::cluster_of(3, Operators::Nowhere).await;
    let mut client = nodes[1].client().await;
    client.send("orders", "", "one").await;
    let mut forged = delete("orders");
    for key in ["isOperator", "operator", "is_operator", "remote", NODE] {
        forged.ext.insert(key, "1");
    }
    refused(&mut client, forged).await;
    // As a node forwards it (`server/src/origin.rs`), of a client that is no operator and of one that is.
    let leader = nodes[0].broker.node_id();
    for (is_operator, code) in [(0, ResponseCode::NoPermission), (1, ResponseCode::Success)] {
        let mut bytes = BytesMut::new();
        bytes.put_slice(&[1, 4, 127, 0, 0, 1, 0x12, 0x34, is_operator, 0]);
        delete("orders").encode(&mut bytes).expect("a frame");
        let answer = nodes[1].broker.group.call(leader, bytes.freeze(), Duration::from_secs(30)).await;
        let mut answer = BytesMut::from(&answer.expect("an answer")[9..]);
        expect(&Frame::decode(&mut answer).expect("a frame").expect("whole"), code);
    }
    assert!(nodes[0].broker.topic("orders").is_none());
}

/// Creating and changing are one request: with four queues less, their messages were gone.
#[tokio::test]
async fn admin_i3_a_client_creates_and_widens_and_takes_nothing_away() {
    let node = Node::cluster_of(1, Operators::Nowhere).await.remove(0);
    let (mut client, mut operator) = (node.client().await, node.operator().await);
    let group =
        |config: &SubscriptionGroupConfig| with_body(RequestCode::UpdateAndCreateSubscriptionGroup, config);
    let usual = SubscriptionGroupConfig { group_name: "g".to_owned(), ..SubscriptionGroupConfig::default() };
    let deaf = SubscriptionGroupConfig { consume_enable: false, ..usual.clone() };
    for (request, code) in [
        (create("orders", 8, 6), ResponseCode::Success),
        (create("orders", 8, 6), ResponseCode::Success),
        (create("orders", 16, 6), ResponseCode::Success),
        (create("orders", 4, 6), ResponseCode::NoPermission),
        (create("orders", 16, 4), ResponseCode::NoPermission),
        (group(&usual), ResponseCode::Success),
        (group(&usual), ResponseCode::Success),
        (group(&deaf), ResponseCode::NoPermission),
    ] {
        expect(&client.call(request).await, code);
    }
    let topic = node.broker.topic("orders").expect("the topic");
    assert_eq!((topic.read_queues, topic.write_queues, topic.perm), (16, 16, 6));
    let pulled = client.ask(RequestCode::PullMessage, &pull_header("orders", 0)).await;
    expect(&pulled, ResponseCode::PullNotFound);
    for request in [create("orders", 4, 4), group(&deaf)] {
        expect(&operator.call(request).await, ResponseCode::Success);
    }
    assert_eq!(node.broker.topic("orders").map(|topic| (topic.read_queues, topic.perm)), Some((4, 4)));
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// All of a list was checked when it came, and a topic that others made meanwhile was replaced: its messages were gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admin_i3_a_list_took_queues_from_a_topic_that_was_made_while_it_was_executed() {
    let node = Node::cluster_of(1, Operators::Nowhere).await.remove(0);
    let (mut hostile, mut honest) = (node.client().await, node.client().await);
    let config = |name: String| TopicConfig {
        topic_name: name,
        read_queue_nums: 1,
        write_queue_nums: 1,
        perm: 6,
        ..TopicConfig::default()
    };
    let names = (0..300).map(|number| format!("bait-{number}")).chain(["orders".to_owned()]);
    let list = TopicConfigList { topic_config_list: names.map(config).collect() };
    let group = &node.broker.group;
    // From then on the log grows by what is asked for here only.
    until("the feature level rises", || group.status().feature_level == FEATURE_LEVEL).await;
    let end = || group.log().state().next_position;
    let grows = async |request: &str, before: u64| until(request, || end() > before).await;
    // The disk hangs in the first topic of the list: all of it is checked, and nothing else of it executed.
    node.disk.hang_syncs(true);
    let before = end();
    hostile.put(with_body(RequestCode::UpdateAndCreateTopicList, &list)).await;
    grows("a topic of the list is in the log", before).await;
    let before = end();
    let created = honest.put(create("orders", 8, 6)).await;
    grows("the other topic is in the log", before).await;
    node.disk.hang_syncs(false);
    let answer = honest.take().await;
    assert_eq!(answer.opaque, created);
    expect(&answer, ResponseCode::Success);
    expect(&hostile.take().await, ResponseCode::NoPermission);
    assert_eq!(node.broker.topic("orders").map(|topic| topic.read_queues), Some(8));
}
