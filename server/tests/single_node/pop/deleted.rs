//! What goes with a topic that groups have popped from.

use std::time::Duration;

use folio_broker::settings::Settings;
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::header::DeleteTopicHeader;
use folio_state::{CreateTopic, Topic};
use tokio::time::{Instant, sleep};

use super::{PATIENCE, pop_header, reach_level};
use crate::node::{Node, execute, expect};

/// Was: the retries stayed, and came with the next topic of that name.
#[tokio::test]
async fn a_topic_is_deleted_with_its_retries() {
    let node = Node::start_with(Settings { pop_retry_v2: true, ..Settings::default() }).await;
    reach_level(std::slice::from_ref(&node)).await;
    let mut client = node.client_of_group().await;
    let has = |topic: &str| node.broker.group.state().topic(topic).is_some();
    client.send("orders", "", "a").await;
    client.pop_some(&pop_header(1, 50)).await;
    let deadline = Instant::now() + PATIENCE;
    while !has("%RETRY%g+orders") {
        assert!(Instant::now() < deadline, "nothing comes again");
        sleep(Duration::from_millis(10)).await;
    }
    // As a node without that setting has made it; and one of another group, which has no offset of the topic.
    for name in ["%RETRY%g_orders", "%RETRY%stranger_orders"] {
        execute(std::slice::from_ref(&node), CreateTopic(Topic::new(name, 1))).await;
    }
    let mut operator = node.operator().await;
    let head = DeleteTopicHeader { topic: "orders".into(), cluster_name: None };
    expect(&operator.ask(RequestCode::DeleteTopicInBroker, &head).await, ResponseCode::Success);
    let left = ["orders", "%RETRY%g+orders", "%RETRY%g_orders", "%RETRY%stranger_orders"].map(has);
    assert_eq!(left, [false, false, false, true]);
    client.send("orders", "", "b").await;
    let popped = client.pop_some(&pop_header(32, 60_000)).await;
    assert_eq!(popped.iter().map(|got| &*got.body).collect::<Vec<_>>(), ["b"]);
}
