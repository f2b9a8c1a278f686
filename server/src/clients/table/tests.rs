//! Tests of the client table: two nodes' tables, told about each other by hand.

use std::time::Duration;

use folio_protocol::body::{ConsumerData, ProducerData};

use super::*;

fn table() -> ClientTable {
    ClientTable::new(Addresses { broker: "127.0.0.1:10911".to_owned(), namesrv: "127.0.0.1:9876".to_owned() })
}

fn consumer(client_id: &str, group: &str, expression: &str, version: i64) -> HeartbeatData {
    let subscription = SubscriptionData {
        topic: "orders".to_owned(),
        sub_string: expression.to_owned(),
        sub_version: version,
        ..SubscriptionData::default()
    };
    let data = ConsumerData {
        group_name: group.to_owned(),
        subscription_data_set: vec![subscription],
        ..ConsumerData::default()
    };
    HeartbeatData {
        client_id: client_id.to_owned(),
        consumer_data_set: vec![data],
        ..HeartbeatData::default()
    }
}

/// Everybody who is told, at once or later.
fn beat(table: &ClientTable, channel: &Channel, data: HeartbeatData) -> Vec<String> {
    let heard = table.heartbeat(channel, &Frame::default(), data).unwrap();
    groups(heard.notices.into_iter().chain(heard.later).collect())
}

fn groups(notices: Vec<Notice>) -> Vec<String> {
    notices.into_iter().map(|notice| notice.group).collect()
}

#[tokio::test]
async fn members_are_told_of_who_comes_and_goes_and_of_nothing_else() {
    let (table, one, two) = (table(), Channel::unconnected(), Channel::unconnected());
    assert_eq!(beat(&table, &one, consumer("c1", "g", "*", 1)), ["g"]);
    assert_eq!(beat(&table, &one, consumer("c1", "g", "*", 1)), [""; 0]);
    assert_eq!(beat(&table, &two, consumer("c2", "g", "*", 2)), ["g", "g"]);
    assert_eq!(table.members("g"), ["c1", "c2"]);
    assert_eq!(groups(table.closed(two.id())), ["g"]);
    assert_eq!(groups(table.unregister(one.id(), "c1", None, Some("g"))), [""; 0]);
    assert!(table.members("g").is_empty() && table.group("g").is_none());
}

#[tokio::test]
async fn a_new_subscription_is_told_and_the_newest_counts() {
    let (table, one, two) = (table(), Channel::unconnected(), Channel::unconnected());
    beat(&table, &one, consumer("c1", "g", "*", 7));
    beat(&table, &two, consumer("c2", "g", "old", 3));
    let wanted = || table.subscription("g", "orders").map(|subscription| subscription.sub_string.clone());
    assert_eq!(wanted().as_deref(), Some("*"));
    assert_eq!(beat(&table, &one, consumer("c1", "g", "a || b", 8)).len(), 2);
    assert_eq!(wanted().as_deref(), Some("a || b"));
    assert_eq!(table.subscription("g", "other"), None);
}

#[tokio::test]
async fn a_heartbeat_without_subscriptions_keeps_them_or_asks_for_them() {
    let (table, channel) = (table(), Channel::unconnected());
    let mut short = consumer("c1", "g", "", 0);
    short.without_sub = true;
    short.consumer_data_set[0].subscription_data_set.clear();
    let first = table.heartbeat(&channel, &Frame::default(), short.clone()).unwrap();
    assert!(first.sub_changed, "the client must send its subscriptions");
    beat(&table, &channel, consumer("c1", "g", "a", 1));
    let second = table.heartbeat(&channel, &Frame::default(), short).unwrap();
    assert!(!second.sub_changed);
    assert!(table.subscription("g", "orders").is_some_and(|subscription| subscription.sub_string == "a"));
}

#[tokio::test]
async fn two_nodes_agree_on_a_group_whose_members_are_on_both() {
    let (left, right) = (table(), table());
    let (one, two) = (Channel::unconnected(), Channel::unconnected());
    beat(&left, &one, consumer("c1", "g", "*", 1));
    beat(&right, &two, consumer("c2", "g", "*", 2));
    assert_eq!(groups(left.heard(2, &right.share().1)), ["g"]);
    assert_eq!(groups(right.heard(1, &left.share().1)), ["g"]);
    assert_eq!(left.members("g"), ["c1", "c2"]);
    assert_eq!(left.members("g"), right.members("g"));
    assert!(left.heard(2, &right.share().1).is_empty(), "the same again is no news");
    assert_eq!(groups(right.closed(two.id())), [""; 0]);
    assert_eq!(groups(left.heard(2, &right.share().1)), ["g"]);
    assert_eq!(left.members("g"), ["c1"]);
    assert_eq!(left.addresses_of(2).map(|addresses| addresses.broker).as_deref(), Some("127.0.0.1:10911"));
}

#[tokio::test]
async fn a_peers_table_that_does_not_decode_changes_nothing() {
    let (left, right) = (table(), table());
    beat(&right, &Channel::unconnected(), consumer("c2", "g", "*", 2));
    drop(left.heard(2, &right.share().1));
    assert!(left.heard(2, b"{\"consumers\": 7}").is_empty());
    assert_eq!(left.members("g"), ["c2"]);
}

#[tokio::test(start_paused = true)]
async fn silent_clients_and_silent_peers_expire() {
    let (left, right) = (table(), table());
    let channel = Channel::unconnected();
    beat(&left, &channel, consumer("c1", "g", "*", 1));
    beat(&right, &Channel::unconnected(), consumer("c2", "g", "*", 1));
    drop(left.heard(2, &right.share().1));
    tokio::time::advance(SHARE_EXPIRES_AFTER + Duration::from_millis(1)).await;
    assert_eq!(groups(left.expire()), ["g"]);
    assert_eq!(left.members("g"), ["c1"]);
    assert!(left.addresses_of(2).is_some(), "where a silent node was stays known");
    drop(left.heard(2, &right.share().1));
    assert_eq!(left.members("g"), ["c1", "c2"], "it is back");
    tokio::time::advance(CLIENT_EXPIRES_AFTER).await;
    drop(left.expire());
    assert!(left.members("g").is_empty());
}

#[tokio::test]
async fn a_producer_is_found_by_its_group_and_a_closed_channel_registers_nobody() {
    let (table, channel) = (table(), Channel::unconnected());
    let data = HeartbeatData {
        client_id: "p1".to_owned(),
        producer_data_set: vec![ProducerData { group_name: "pg".to_owned() }],
        ..HeartbeatData::default()
    };
    table.heartbeat(&channel, &Frame::default(), data).unwrap();
    assert_eq!(table.producers("pg").len(), 1);
    assert!(table.producer_channel("pg").is_some() && table.producer_channel("other").is_none());
    let gone = Channel::unconnected();
    gone.close(crate::net::CloseReason::PeerClosed);
    beat(&table, &gone, consumer("c9", "g", "*", 1));
    assert!(table.members("g").is_empty());
}

/// A notice in the middle of its first heartbeats had a client rebalance before all nodes knew it.
#[tokio::test]
async fn a_newcomer_is_told_later_and_the_others_at_once() {
    let (table, one, two) = (table(), Channel::unconnected(), Channel::unconnected());
    let heard = |channel: &Channel, data| {
        let heard = table.heartbeat(channel, &Frame::default(), data).unwrap();
        assert!(heard.sub_changed);
        let ids =
            |notices: Vec<Notice>| -> Vec<u64> { notices.iter().map(|notice| notice.channel.id()).collect() };
        (ids(heard.notices), ids(heard.later))
    };
    assert_eq!(heard(&one, consumer("c1", "g", "*", 1)), (vec![], vec![one.id()]));
    assert_eq!(heard(&two, consumer("c2", "g", "*", 1)), (vec![one.id()], vec![two.id()]));
    let (mut now, later) = heard(&one, consumer("c1", "g", "a", 2));
    now.sort_unstable();
    assert_eq!((now, later), (vec![one.id(), two.id()], vec![]), "it has been a member before");
}

#[tokio::test]
async fn clients_i3_a_table_that_comes_late_does_not_undo_a_newer_one() {
    let (left, right, channel) = (table(), table(), Channel::unconnected());
    beat(&right, &channel, consumer("c2", "g", "*", 2));
    let (old_revision, old) = right.share();
    drop(right.unregister(channel.id(), "c2", None, Some("g")));
    let (revision, new) = right.share();
    assert!(revision > old_revision && revision == right.revision());
    drop(left.heard(2, &new));
    drop(left.heard(2, &old));
    assert!(left.members("g").is_empty());
    // A new process of that node counts from the beginning.
    let again = table();
    beat(&again, &Channel::unconnected(), consumer("c3", "g", "*", 2));
    drop(left.heard(2, &again.share().1));
    assert_eq!(left.members("g"), ["c3"]);
}

#[tokio::test]
async fn two_processes_with_one_client_id_are_named_once() {
    let (table, one, two) = (table(), Channel::unconnected(), Channel::unconnected());
    let named = |channel: &Channel| {
        table.heartbeat(channel, &Frame::default(), consumer("10.0.0.1@1", "g", "*", 1)).unwrap().duplicates
    };
    assert!(named(&one).is_empty() && named(&two).is_empty());
    let [duplicate] = &named(&one)[..] else { panic!("two processes were not noticed") };
    assert_eq!((duplicate.group.as_str(), duplicate.client_id.as_str()), ("g", "10.0.0.1@1"));
    assert!(named(&two).is_empty() && named(&one).is_empty());
}

/// Six heartbeats of 14 MiB made a node's part longer than a frame between nodes: the others took all its clients for gone.
#[tokio::test]
async fn clients_i4_a_client_beyond_the_tables_limit_is_refused_and_the_others_stay() {
    let table = table();
    let full = |client: usize| {
        let mut data = consumer(&format!("c{client}"), "g", &"x".repeat(16 << 10), 1);
        let subscriptions = &mut data.consumer_data_set[0].subscription_data_set;
        *subscriptions = vec![subscriptions[0].clone(); 60];
        data
    };
    let channels: Vec<Channel> = (0..20).map(|_| Channel::unconnected()).collect();
    let heartbeat = |client: usize| table.heartbeat(&channels[client], &Frame::default(), full(client));
    let taken = (0..20).take_while(|client| heartbeat(*client).is_ok()).count();
    assert!((10..20).contains(&taken), "{taken}");
    assert!(table.share().1.len() <= TABLE_BYTES_MAX + 1024, "clients.I4");
    assert!(heartbeat(taken).is_err() && heartbeat(0).is_ok(), "who is there stays");
    assert_eq!(table.members("g").len(), taken);
    drop(table.closed(channels[0].id()));
    assert!(heartbeat(taken).is_ok());
}

/// Registers a client of so many groups in a new table; how long it took, the best of five.
fn registered_in(groups: usize) -> Duration {
    let mut data = consumer("c", "g", "*", 1);
    let one = data.consumer_data_set[0].clone();
    let named = |number| ConsumerData { group_name: format!("g{number}"), ..one.clone() };
    data.consumer_data_set = (0..groups).map(named).collect();
    let register = || {
        let (table, channel, data) = (table(), Channel::unconnected(), data.clone());
        let begun = std::time::Instant::now();
        table.heartbeat(&channel, &Frame::default(), data).unwrap();
        begun.elapsed()
    };
    (0..5).map(|_| register()).min().unwrap()
}

/// 30,000 groups in one heartbeat took 6.7 s under the table's lock, and again on each other node.
#[tokio::test]
async fn a_heartbeat_cost_the_square_of_its_groups() {
    let (few, many) = (registered_in(200), registered_in(2_000));
    assert!(many < few * 40, "{few:?} for 200 groups, {many:?} for ten times as many");
}
