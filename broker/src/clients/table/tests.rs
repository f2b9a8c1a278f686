//! Tests of the client table: two nodes' tables, told about each other by hand.

use std::time::Duration;

use folio_protocol::body::{ConsumerData, ProducerData};
use proptest::prelude::*;

use super::*;
use crate::clients::CLIENT_EXPIRES_AFTER;
use crate::connection::testing::Unconnected;

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
fn beat(table: &ClientTable, channel: &Unconnected, data: HeartbeatData) -> Vec<String> {
    let heard = table.heartbeat(channel, Software::default(), data).unwrap();
    groups(heard.notices.into_iter().chain(heard.later).collect())
}

/// Everything that a node tells a peer that has heard so much; what it has heard then.
fn told(from: &ClientTable, mut heard: Option<Progress>) -> (Vec<Outgoing>, Option<Progress>) {
    let mut parts = Vec::new();
    loop {
        let part = from.part(heard);
        heard = Some(part.then);
        parts.push(part);
        if parts.last().is_some_and(|part| part.complete) {
            return (parts, heard);
        }
    }
}

/// Tells everything to a peer.
fn tell(from: &ClientTable, to: &ClientTable) -> Vec<Notice> {
    told(from, None).0.iter().flat_map(|part| hear(to, part)).collect()
}

/// A part that the peer takes over.
fn hear(to: &ClientTable, part: &Outgoing) -> Vec<Notice> {
    let (notices, answer) = to.heard(2, &part.bytes);
    assert!(part.is_heard(&answer));
    notices
}

fn groups(notices: Vec<Notice>) -> Vec<String> {
    notices.into_iter().map(|notice| notice.group).collect()
}

#[tokio::test]
async fn members_are_told_of_who_comes_and_goes_and_of_nothing_else() {
    let (table, one, two) = (table(), Unconnected::new(), Unconnected::new());
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
    let (table, one, two) = (table(), Unconnected::new(), Unconnected::new());
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
    let (table, channel) = (table(), Unconnected::new());
    let mut short = consumer("c1", "g", "", 0);
    short.without_sub = true;
    short.consumer_data_set[0].subscription_data_set.clear();
    let first = table.heartbeat(&channel, Software::default(), short.clone()).unwrap();
    assert!(first.sub_changed, "the client must send its subscriptions");
    beat(&table, &channel, consumer("c1", "g", "a", 1));
    let second = table.heartbeat(&channel, Software::default(), short).unwrap();
    assert!(!second.sub_changed);
    assert!(table.subscription("g", "orders").is_some_and(|subscription| subscription.sub_string == "a"));
}

#[tokio::test]
async fn two_nodes_agree_on_a_group_whose_members_are_on_both() {
    let (left, right) = (table(), table());
    let (one, two) = (Unconnected::new(), Unconnected::new());
    beat(&left, &one, consumer("c1", "g", "*", 1));
    beat(&right, &two, consumer("c2", "g", "*", 2));
    assert_eq!(groups(tell(&right, &left)), ["g"]);
    assert_eq!(groups(tell(&left, &right)), ["g"]);
    assert_eq!(left.members("g"), ["c1", "c2"]);
    assert_eq!(left.members("g"), right.members("g"));
    assert!(tell(&right, &left).is_empty(), "the same again is no news");
    assert_eq!(groups(right.closed(two.id())), [""; 0]);
    assert_eq!(groups(tell(&right, &left)), ["g"]);
    assert_eq!(left.members("g"), ["c1"]);
    assert_eq!(left.addresses_of(2).map(|addresses| addresses.broker).as_deref(), Some("127.0.0.1:10911"));
}

#[tokio::test]
async fn a_peers_table_that_does_not_decode_changes_nothing() {
    let (left, right) = (table(), table());
    beat(&right, &Unconnected::new(), consumer("c2", "g", "*", 2));
    drop(tell(&right, &left));
    let (notices, answer) = left.heard(2, b"{\"consumers\": 7}");
    assert!(notices.is_empty() && !told(&right, None).0[0].is_heard(&answer));
    assert_eq!(left.members("g"), ["c2"]);
}

#[tokio::test(start_paused = true)]
async fn silent_clients_and_silent_peers_expire() {
    let (left, right) = (table(), table());
    let channel = Unconnected::new();
    beat(&left, &channel, consumer("c1", "g", "*", 1));
    beat(&right, &Unconnected::new(), consumer("c2", "g", "*", 1));
    drop(tell(&right, &left));
    tokio::time::advance(SHARE_EXPIRES_AFTER + Duration::from_millis(1)).await;
    assert_eq!(groups(left.expire()), ["g"]);
    assert_eq!(left.members("g"), ["c1"]);
    assert!(left.addresses_of(2).is_some(), "where a silent node was stays known");
    drop(tell(&right, &left));
    assert_eq!(left.members("g"), ["c1", "c2"], "it is back");
    tokio::time::advance(CLIENT_EXPIRES_AFTER).await;
    drop(left.expire());
    assert!(left.members("g").is_empty());
}

#[tokio::test]
async fn a_producer_is_found_by_its_group_and_a_closed_channel_registers_nobody() {
    let (table, channel) = (table(), Unconnected::new());
    let data = HeartbeatData {
        client_id: "p1".to_owned(),
        producer_data_set: vec![ProducerData { group_name: "pg".to_owned() }],
        ..HeartbeatData::default()
    };
    table.heartbeat(&channel, Software::default(), data).unwrap();
    assert_eq!(table.producers("pg").len(), 1);
    assert!(table.producers("other").is_empty());
    let gone = Unconnected::new();
    gone.close();
    beat(&table, &gone, consumer("c9", "g", "*", 1));
    assert!(table.members("g").is_empty());
}

/// A notice in the middle of its first heartbeats had a client rebalance before all nodes knew it.
#[tokio::test]
async fn a_newcomer_is_told_later_and_the_others_at_once() {
    let (table, one, two) = (table(), Unconnected::new(), Unconnected::new());
    let heard = |channel: &Unconnected, data| {
        let heard = table.heartbeat(channel, Software::default(), data).unwrap();
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
    let (left, right, channel) = (table(), table(), Unconnected::new());
    beat(&right, &channel, consumer("c2", "g", "*", 2));
    let (old, heard) = told(&right, None);
    drop(hear(&left, &old[0]));
    let (again, _) = told(&right, None);
    drop(right.unregister(channel.id(), "c2", None, Some("g")));
    let (new, _) = told(&right, heard);
    assert!(new[0].then.revision() > old[0].then.revision() && new[0].then.revision() == right.revision());
    drop(hear(&left, &new[0]));
    assert!(left.members("g").is_empty());
    assert!(left.heard(2, &old[0].bytes).0.is_empty(), "of the same pass");
    let (everything, _) = told(&right, None);
    drop(hear(&left, &everything[0]));
    for late in [&again[0], &new[0]] {
        assert!(left.heard(2, &late.bytes).0.is_empty(), "of an earlier pass");
    }
    assert!(left.members("g").is_empty());
    // A new process of that node counts from the beginning.
    let again = table();
    beat(&again, &Unconnected::new(), consumer("c3", "g", "*", 2));
    drop(tell(&again, &left));
    assert_eq!(left.members("g"), ["c3"]);
}

#[tokio::test]
async fn two_processes_with_one_client_id_are_named_once() {
    let (table, one, two) = (table(), Unconnected::new(), Unconnected::new());
    let named = |channel: &Unconnected| {
        table.heartbeat(channel, Software::default(), consumer("10.0.0.1@1", "g", "*", 1)).unwrap().duplicates
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
    let channels: Vec<Unconnected> = (0..20).map(|_| Unconnected::new()).collect();
    let heartbeat = |client: usize| table.heartbeat(&channels[client], Software::default(), full(client));
    let taken = (0..20).take_while(|client| heartbeat(*client).is_ok()).count();
    assert!((10..20).contains(&taken), "{taken}");
    assert!(table.state.read().feed.bytes() <= TABLE_BYTES_MAX, "clients.I4");
    assert!(heartbeat(taken).is_err() && heartbeat(0).is_ok(), "who is there stays");
    assert_eq!(table.members("g").len(), taken);
    drop(table.closed(channels[0].id()));
    assert!(heartbeat(taken).is_ok());
}

/// One connection could fill the table, under as many client ids as it liked: no other client could register.
#[tokio::test]
async fn clients_i4_one_connection_registers_an_eighth_of_the_table_at_most() {
    let (table, hostile, honest) = (table(), Unconnected::new(), Unconnected::new());
    let full = |client: usize| {
        let mut data = consumer(&format!("c{client}"), "g", &"x".repeat(16 << 10), 1);
        let subscriptions = &mut data.consumer_data_set[0].subscription_data_set;
        *subscriptions = vec![subscriptions[0].clone(); 60];
        data
    };
    let taken =
        (0..20).filter(|client| table.heartbeat(&hostile, Software::default(), full(*client)).is_ok());
    assert_eq!(taken.count(), 2);
    let refused = table.heartbeat(&hostile, Software::default(), full(3)).unwrap_err();
    assert!(refused.to_string().contains("by connection"), "{refused}");
    assert!(table.heartbeat(&honest, Software::default(), full(99)).is_ok());
}

/// Registers clients of so many groups each, every one in a table of its own; how long all of them took.
fn registered_in(clients: usize, groups: usize) -> Duration {
    let mut data = consumer("c", "g", "*", 1);
    let one = data.consumer_data_set[0].clone();
    let named = |number| ConsumerData { group_name: format!("g{number}"), ..one.clone() };
    data.consumer_data_set = (0..groups).map(named).collect();
    let each: Vec<_> = (0..clients).map(|_| (table(), Unconnected::new(), data.clone())).collect();
    let begun = std::time::Instant::now();
    for (table, channel, data) in each {
        table.heartbeat(&channel, Software::default(), data).unwrap();
    }
    begun.elapsed()
}

/// 30,000 groups in one heartbeat took 6.7 s under the table's lock, and again on each other node.
#[tokio::test]
async fn a_heartbeat_cost_the_square_of_its_groups() {
    // As many groups both times, in turns and the best of five: what else runs on the machine holds up both.
    let (mut ten, mut one) = (Duration::MAX, Duration::MAX);
    for _ in 0..5 {
        ten = ten.min(registered_in(10, 200));
        one = one.min(registered_in(1, 2_000));
    }
    assert!(one < ten * 4, "{ten:?} for ten clients of 200 groups, {one:?} for one of 2,000");
}

/// Time that a newcomer of a group takes which has so many members already, the best of some.
fn joined(members: usize) -> Duration {
    let (table, channels) = (table(), (0..members / 100).map(|_| Unconnected::new()).collect::<Vec<_>>());
    let join = |channel: &Unconnected, number: usize| {
        let data = consumer(&format!("c{number}"), "g", "*", 1);
        let begun = std::time::Instant::now();
        assert!(table.heartbeat(channel, Software::default(), data).unwrap().sub_changed);
        begun.elapsed()
    };
    for number in 0..members {
        join(&channels[number % channels.len()], number);
    }
    (0..50).map(|more| join(&channels[0], members + more)).min().unwrap()
}

/// Each newcomer had the whole group derived anew, under the table's lock and on each node: milliseconds in a group of
/// thousands (`hostile --attack same-group-flood`).
#[tokio::test]
async fn clients_i5_a_newcomer_cost_all_members_of_its_group() {
    let (few, many) = (joined(200), joined(8_000));
    assert!(many < few * 10, "{few:?} among 200 members, {many:?} among 8,000");
}

/// A table of many clients, each with a subscription of so many bytes.
fn crowd(clients: usize, bytes: usize) -> (ClientTable, Vec<Unconnected>) {
    let (table, channels) = (table(), (0..clients).map(|_| Unconnected::new()).collect::<Vec<_>>());
    for (number, channel) in channels.iter().enumerate() {
        let data = consumer(&format!("c{number:04}"), &format!("g{}", number % 10), &"x".repeat(bytes), 1);
        table.heartbeat(channel, Software::default(), data).unwrap();
    }
    (table, channels)
}

/// The whole table went out at each change: with a large one, one client's heartbeats kept all nodes busy.
#[tokio::test]
async fn share_i1_a_change_cost_the_whole_table() {
    let (left, (right, channels)) = (table(), crowd(800, 8 << 10));
    let (parts, heard) = told(&right, None);
    assert!(parts.len() > 6 && parts.iter().all(|part| part.bytes.len() < PART_BYTES_MAX + 4096));
    parts.iter().for_each(|part| drop(hear(&left, part)));
    assert_eq!(left.members("g3"), right.members("g3"));
    beat(&right, &channels[3], consumer("c0003", "g3", "other", 2));
    drop(right.closed(channels[13].id()));
    let (parts, _) = told(&right, heard);
    assert!(parts.len() == 1 && parts[0].bytes.len() < 1024, "{}", parts[0].bytes.len());
    assert_eq!(groups(hear(&left, &parts[0])), [""; 0]);
    assert_eq!(left.members("g3").len(), 79);
    assert_eq!(left.members("g3"), right.members("g3"));
    assert!(left.subscription("g3", "orders").is_some_and(|subscription| subscription.sub_string == "other"));
}

/// Parts that are lost, come twice or come late, while clients come and go on both sides of the peer's restart.
#[tokio::test]
async fn share_i2_no_client_that_stays_is_missed_while_a_pass_begins_anew() {
    let (left, (right, channels)) = (table(), crowd(400, 16 << 10));
    drop(tell(&right, &left));
    // More registrations end than are listed: the peer has to be told everything again.
    let (guest, heard) = (Unconnected::new(), Some(right.part(None).then));
    for number in 0..20_000 {
        beat(&right, &guest, consumer("guest", &format!("guest-{number}"), "*", 1));
        drop(right.unregister(guest.id(), "guest", None, Some(&format!("guest-{number}"))));
    }
    drop(right.closed(channels[0].id()));
    let (parts, _) = told(&right, heard);
    let (last, first) = parts.split_last().unwrap();
    assert!(first.len() > 3);
    for part in first {
        drop(hear(&left, part));
        let listed: usize = (0..10).map(|group| left.members(&format!("g{group}")).len()).sum();
        assert_eq!(listed, 400, "share.I2");
    }
    drop(hear(&left, last));
    assert_eq!(left.members("g0"), right.members("g0"));
    assert_eq!(left.members("g0").len(), 39);
    // A peer that has started again does not know the pass.
    let (again, heard) = (table(), told(&right, None).1);
    beat(&right, &guest, consumer("guest", "g0", "*", 1));
    let part = right.part(heard);
    let (notices, answer) = again.heard(2, &part.bytes);
    assert!(notices.is_empty() && !part.is_heard(&answer) && again.addresses_of(2).is_none());
    drop(tell(&right, &again));
    assert_eq!(again.members("g0"), right.members("g0"));
}

/// One random run: two tables, of which one is told of the other, over a link that loses, repeats and delays parts.
fn a_link_that_loses_and_delays(steps: Vec<(u8, u8)>) {
    let (left, right) = (table(), table());
    let channels: Vec<Unconnected> = (0..4).map(|_| Unconnected::new()).collect();
    let (mut heard, mut sent): (Option<Progress>, Vec<Bytes>) = (None, Vec::new());
    for (step, choice) in steps {
        let (channel, group) = (&channels[usize::from(choice % 4)], format!("g{}", choice / 4 % 3));
        let client = format!("c{}", choice % 4);
        match step {
            0..=3 => drop(beat(&right, channel, consumer(&client, &group, "*", i64::from(choice)))),
            4 | 5 => drop(right.unregister(channel.id(), &client, None, Some(&group))),
            6 => drop(right.closed(channel.id())),
            7 => {
                // It comes late.
                if let Some(late) = sent.get(usize::from(choice) % sent.len().max(1)) {
                    let before: Vec<_> = (0..3).map(|group| left.members(&format!("g{group}"))).collect();
                    drop(left.heard(2, late));
                    let after: Vec<_> = (0..3).map(|group| left.members(&format!("g{group}"))).collect();
                    assert_eq!(before, after, "clients.I3");
                }
            }
            _ => {
                let part = right.part(heard.filter(|_| choice % 8 > 0));
                let answer = left.heard(2, &part.bytes).1;
                sent.push(part.bytes.clone());
                // Its answer may be lost.
                if choice % 3 > 0 {
                    heard = part.is_heard(&answer).then_some(part.then);
                }
            }
        }
    }
    for part in told(&right, heard).0 {
        if !part.is_heard(&left.heard(2, &part.bytes).1) {
            drop(tell(&right, &left));
        }
    }
    for group in ["g0", "g1", "g2"] {
        assert_eq!(left.members(group), right.members(group));
        for table in [&left, &right] {
            // clients.I2: what is kept is what is derived from all registrations at once.
            let view = table.group(group).unwrap_or_default();
            assert_eq!(table.members(group), view.members.keys().cloned().collect::<Vec<_>>());
            let kept = table.subscription(group, "orders");
            assert_eq!(kept.as_ref(), view.subscriptions.get("orders"));
        }
    }
    channels.iter().for_each(|channel| drop(right.closed(channel.id())));
    drop(tell(&right, &left));
    for table in [&left, &right] {
        let state = table.state.read();
        assert!(state.members.is_empty() && state.feed.bytes() == 0);
    }
}

proptest! {
    /// `clients.I3`, `share.I2`
    #[test]
    fn a_peer_lists_what_its_node_lists_however_parts_are_lost_and_delayed(
        steps in prop::collection::vec((0..12u8, any::<u8>()), 0..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { a_link_that_loses_and_delays(steps) });
    }
}
