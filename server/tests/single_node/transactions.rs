//! Transactions over the wire: half messages that no consumer sees, their ends, and the questions to producers that say nothing.

use std::time::Duration;

use bytes::Bytes;
use folio_broker::settings::Settings;
use folio_broker::transactions::TransactionSettings;
use folio_protocol::body::{HeartbeatData, ProducerData};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;
use folio_protocol::header::{
    CheckTransactionStateHeader, ConsumerSendBackHeader, EndTransactionHeader, ResumeCheckHalfMessageHeader,
    SendMessageHeader, SendMessageResponseHeader,
};
use folio_protocol::ids::OffsetMessageId;
use folio_protocol::message::MessageView;
use tokio::time::{Instant, sleep, timeout};

use crate::failover::lead;
use crate::node::{Client, Node, expect, header, message, messages, pull_header, send_header, with_body};

const PATIENCE: Duration = Duration::from_secs(60);
const COMMIT: i32 = 8;
const ROLL_BACK: i32 = 12;
const UNKNOWN: i32 = 0;

/// A half message, as its producer knows it.
struct Half {
    position: i64,
    queue_offset: i64,
    key: String,
}

fn half_header(key: &str, more: &str) -> SendMessageHeader {
    let properties = format!("UNIQ_KEY\u{1}{key}\u{2}TRAN_MSG\u{1}true\u{2}PGROUP\u{1}p\u{2}{more}");
    SendMessageHeader { sys_flag: 4, properties: Some(properties), ..send_header("orders", "") }
}

async fn begin(client: &mut Client, key: &str, more: &str) -> Half {
    let answer = client.call(message(&half_header(key, more), key)).await;
    expect(&answer, ResponseCode::Success);
    let sent: SendMessageResponseHeader = header(&answer);
    assert_eq!((sent.transaction_id.as_deref(), sent.queue_id), (Some(key), 0));
    let id: OffsetMessageId = sent.msg_id.parse().expect("an id");
    Half { position: id.position as i64, queue_offset: sent.queue_offset, key: key.to_owned() }
}

fn end_header(half: &Half, how: i32, is_answer: bool) -> EndTransactionHeader {
    EndTransactionHeader {
        topic: Some("orders".into()),
        producer_group: "p".into(),
        tran_state_table_offset: half.queue_offset,
        commit_log_offset: half.position,
        commit_or_rollback: how,
        from_transaction_check: is_answer,
        msg_id: half.key.clone(),
        transaction_id: Some(half.key.clone()),
    }
}

async fn end(client: &mut Client, half: &Half, how: i32) -> Frame {
    client.ask(RequestCode::EndTransaction, &end_header(half, how, false)).await
}

/// The bodies of a queue, once there are so many.
async fn bodies(client: &mut Client, topic: &str, count: usize) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let pulled = client.ask(RequestCode::PullMessage, &pull_header(topic, 0)).await;
        let found = messages(&pulled.body);
        if found.len() >= count {
            return found.iter().map(|of| String::from_utf8_lossy(of.body()).into_owned()).collect();
        }
        assert!(Instant::now() < deadline, "{} of {count} messages in {topic}", found.len());
        sleep(Duration::from_millis(10)).await;
    }
}

async fn node_with(transactions: TransactionSettings) -> Node {
    let node = Node::start_with(Settings { transactions, ..Settings::default() }).await;
    node.reach_level().await;
    node
}

/// Asks after half a second, and then often.
fn quick() -> TransactionSettings {
    TransactionSettings {
        timeout: Duration::from_millis(500),
        check_interval: Duration::from_millis(300),
        ..TransactionSettings::default()
    }
}

async fn register(client: &mut Client) {
    let data = HeartbeatData {
        client_id: "producer".to_owned(),
        producer_data_set: vec![ProducerData { group_name: "p".to_owned() }],
        ..HeartbeatData::default()
    };
    expect(&client.call(with_body(RequestCode::HeartBeat, &data)).await, ResponseCode::Success);
}

/// The next question.
async fn question(client: &mut Client) -> (CheckTransactionStateHeader, Bytes) {
    let frame = timeout(PATIENCE, client.take()).await.expect("a question in time");
    assert_eq!((frame.code, frame.is_oneway()), (RequestCode::CheckTransactionState.code(), true));
    (header(&frame), frame.body)
}

#[tokio::test]
async fn transactions_i1_a_half_message_is_seen_once_it_is_committed_and_never_twice() {
    let node = node_with(TransactionSettings::default()).await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "plain").await;
    let committed = begin(&mut client, "A", "TAGS\u{1}T\u{2}KEYS\u{1}k\u{2}").await;
    let rolled_back = begin(&mut client, "B", "").await;
    assert_eq!(bodies(&mut client, "orders", 1).await, ["plain"]);
    expect(&end(&mut client, &committed, UNKNOWN).await, ResponseCode::Success);
    for _ in 0..3 {
        expect(&end(&mut client, &committed, COMMIT).await, ResponseCode::Success);
        expect(&end(&mut client, &rolled_back, ROLL_BACK).await, ResponseCode::Success);
    }
    expect(&end(&mut client, &committed, ROLL_BACK).await, ResponseCode::IllegalOperation);
    expect(&end(&mut client, &rolled_back, COMMIT).await, ResponseCode::IllegalOperation);
    client.send("orders", "", "last").await;
    assert_eq!(bodies(&mut client, "orders", 3).await, ["plain", "A", "last"]);
    let pulled = client.ask(RequestCode::PullMessage, &pull_header("orders", 1)).await;
    let stored = messages(&pulled.body)[0];
    let said = ["UNIQ_KEY", "TAGS", "KEYS", "PGROUP", "TRAN_MSG", "REAL_TOPIC", "REAL_QID"];
    let said = said.map(|name| stored.property(name));
    assert_eq!(said, [Some("A"), Some("T"), Some("k"), Some("p"), None, None, None]);
    assert_eq!((stored.sys_flag() & 12, stored.prepared_transaction_offset()), (8, committed.position));
}

#[tokio::test]
async fn an_end_that_names_another_message_ends_nothing() {
    let node = node_with(TransactionSettings::default()).await;
    let mut client = node.client_of_group().await;
    let half = begin(&mut client, "A", "").await;
    let right = end_header(&half, COMMIT, false);
    for (wrong, why) in [
        (EndTransactionHeader { producer_group: "q".into(), ..right.clone() }, "The producer group wrong"),
        (
            EndTransactionHeader { tran_state_table_offset: 7, ..right.clone() },
            "The transaction state table offset wrong",
        ),
        (
            EndTransactionHeader { commit_log_offset: half.position + 1, ..right.clone() },
            "Find prepared transaction message failed",
        ),
        (
            EndTransactionHeader { commit_log_offset: -1, ..right.clone() },
            "Find prepared transaction message failed",
        ),
    ] {
        let answer = client.ask(RequestCode::EndTransaction, &wrong).await;
        expect(&answer, ResponseCode::SystemError);
        assert_eq!(answer.remark.as_deref(), Some(why));
    }
    assert_eq!(node.broker.group.state().transactions().count(), 1);
}

/// A consumer that guessed its position got it before its transaction was committed.
#[tokio::test]
async fn a_half_message_cannot_be_sent_back() {
    let node = node_with(TransactionSettings::default()).await;
    let mut client = node.client_of_group().await;
    let half = begin(&mut client, "A", "").await;
    let back = ConsumerSendBackHeader {
        offset: half.position,
        group: "g".into(),
        delay_level: -1,
        origin_msg_id: None,
        origin_topic: Some("orders".into()),
        unit_mode: false,
        max_reconsume_times: None,
        broker_name: None,
    };
    let answer = client.ask(RequestCode::ConsumerSendMessageBack, &back).await;
    expect(&answer, ResponseCode::SystemError);
    assert_eq!(node.broker.group.queues().bounds("%DLQ%g", 0), None);
}

/// They were accepted and mishandled (apache/rocketmq#9923, #10260).
#[tokio::test]
async fn what_cannot_be_part_of_a_transaction_is_refused_by_name() {
    let node = node_with(TransactionSettings::default()).await;
    let mut client = node.client_of_group().await;
    for delay in ["DELAY\u{1}3\u{2}", "TIMER_DELAY_SEC\u{1}9\u{2}", "TIMER_DELIVER_MS\u{1}9\u{2}"] {
        let answer = client.call(message(&half_header("A", delay), "x")).await;
        expect(&answer, ResponseCode::MessageIllegal);
        assert!(answer.remark.is_some_and(|remark| remark.contains("delayed")), "{delay}");
    }
    let nobody = SendMessageHeader {
        properties: Some("UNIQ_KEY\u{1}A\u{2}TRAN_MSG\u{1}true\u{2}".to_owned()),
        ..half_header("A", "")
    };
    let unmarked =
        SendMessageHeader { properties: Some("UNIQ_KEY\u{1}A\u{2}".to_owned()), ..half_header("A", "") };
    for (wrong, name) in [(nobody, "PGROUP"), (unmarked, "TRAN_MSG")] {
        let answer = client.call(message(&wrong, "x")).await;
        expect(&answer, ResponseCode::MessageIllegal);
        assert!(answer.remark.is_some_and(|remark| remark.contains(name)), "{name}");
    }
    let straight = SendMessageHeader { topic: "RMQ_SYS_TRANS_HALF_TOPIC".into(), ..half_header("A", "") };
    expect(&client.call(message(&straight, "x")).await, ResponseCode::NoPermission);
    assert_eq!(node.broker.group.state().transactions().count(), 0);
}

#[tokio::test]
async fn transactions_i4_a_producer_is_asked_and_its_answer_counts() {
    let node = node_with(quick()).await;
    let (mut client, mut producer) = (node.client_of_group().await, node.client().await);
    let begun = Instant::now();
    let half = begin(&mut client, "A", "").await;
    register(&mut producer).await;
    let (asked, body) = question(&mut producer).await;
    assert!(begun.elapsed() >= Duration::from_millis(400), "asked after {:?}", begun.elapsed());
    let CheckTransactionStateHeader {
        tran_state_table_offset,
        commit_log_offset,
        msg_id,
        transaction_id,
        ..
    } = asked;
    assert_eq!((tran_state_table_offset, commit_log_offset), (half.queue_offset, half.position));
    assert_eq!((msg_id.as_deref(), transaction_id.as_deref()), (Some("A"), Some("A")));
    assert_eq!(asked.topic.as_deref(), Some("orders"));
    let shown = MessageView::parse(&body).expect("a message");
    assert_eq!((shown.topic(), shown.queue_id(), shown.body()), ("orders", 0, &b"A"[..]));
    assert_eq!((shown.property("PGROUP"), shown.property("TRANSACTION_CHECK_TIMES")), (Some("p"), Some("1")));
    // It does not know, and is asked again; then it commits, and is not asked any more.
    producer
        .put(
            Frame::request(RequestCode::EndTransaction, &end_header(&half, UNKNOWN, true), Bytes::new())
                .oneway(),
        )
        .await;
    let (_, body) = question(&mut producer).await;
    assert_eq!(MessageView::parse(&body).expect("a message").property("TRANSACTION_CHECK_TIMES"), Some("2"));
    producer
        .put(
            Frame::request(RequestCode::EndTransaction, &end_header(&half, COMMIT, true), Bytes::new())
                .oneway(),
        )
        .await;
    assert_eq!(bodies(&mut client, "orders", 1).await, ["A"]);
    assert!(timeout(Duration::from_secs(2), producer.take()).await.is_err(), "it was asked after its commit");
}

#[tokio::test]
async fn transactions_i4_nobody_is_asked_while_its_message_is_immune() {
    let node = node_with(TransactionSettings { checks_max: 1, ..quick() }).await;
    let (mut client, mut producer) = (node.client_of_group().await, node.client().await);
    register(&mut producer).await;
    let begun = Instant::now();
    begin(&mut client, "A", "CHECK_IMMUNITY_TIME_IN_SECONDS\u{1}3s\u{2}").await;
    let (_, body) = question(&mut producer).await;
    assert!(begun.elapsed() >= Duration::from_millis(2_800), "asked after {:?}", begun.elapsed());
    let shown = MessageView::parse(&body).expect("a message");
    assert_eq!(shown.property("TRANSACTION_CHECK_TIMES"), Some("1"), "immune rounds do not count");
}

#[tokio::test]
async fn what_was_asked_about_too_often_is_given_up_and_can_be_resumed_once() {
    let node = node_with(TransactionSettings { checks_max: 2, ..quick() }).await;
    let (mut client, mut producer) = (node.client_of_group().await, node.client().await);
    register(&mut producer).await;
    let half = begin(&mut client, "A", "").await;
    for times in ["1", "2"] {
        let (_, body) = question(&mut producer).await;
        let shown = MessageView::parse(&body).expect("a message");
        assert_eq!(shown.property("TRANSACTION_CHECK_TIMES"), Some(times));
    }
    assert_eq!(bodies(&mut client, "TRANS_CHECK_MAX_TIME_TOPIC", 1).await, ["A"]);
    let refused = end(&mut client, &half, COMMIT).await;
    expect(&refused, ResponseCode::IllegalOperation);
    assert!(refused.remark.is_some_and(|remark| remark.contains("resumed")));
    let pulled = client.ask(RequestCode::PullMessage, &pull_header("TRANS_CHECK_MAX_TIME_TOPIC", 0)).await;
    let lost = messages(&pulled.body)[0];
    assert_eq!(lost.property("TRANSACTION_CHECK_TIMES"), Some("2"));
    let id = OffsetMessageId { host: lost.store_host(), position: lost.physical_offset() };
    let mut operator = node.operator().await;
    let resume = ResumeCheckHalfMessageHeader { topic: None, msg_id: id.to_string() };
    expect(&operator.ask(RequestCode::ResumeCheckHalfMessage, &resume).await, ResponseCode::Success);
    expect(&operator.ask(RequestCode::ResumeCheckHalfMessage, &resume).await, ResponseCode::IllegalOperation);
    let (asked, _) = question(&mut producer).await;
    assert_eq!((asked.commit_log_offset, asked.tran_state_table_offset), (half.position, half.queue_offset));
    expect(&end(&mut client, &half, COMMIT).await, ResponseCode::Success);
    assert_eq!(bodies(&mut client, "orders", 1).await, ["A"]);
}

/// Its producers are gone: nothing is asked, written or counted. When they are back all is resolved.
#[tokio::test]
async fn transactions_i5_a_group_without_producers_is_left_alone_and_resolved_when_it_returns() {
    const COUNT: usize = 600;
    // Nobody is asked twice, however slowly the answers are stored.
    let once =
        TransactionSettings { timeout: Duration::ZERO, check_interval: PATIENCE, checks_max: 1, ..quick() };
    let node = node_with(once).await;
    let mut client = node.client_of_group().await;
    for number in 0..COUNT {
        begin(&mut client, &number.to_string(), "").await;
    }
    let position = node.broker.group.status().applied_position;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(node.broker.group.status().applied_position, position, "the log has grown");
    let mut producer = node.client().await;
    register(&mut producer).await;
    for _ in 0..COUNT {
        let (asked, _) = question(&mut producer).await;
        let half = Half {
            position: asked.commit_log_offset,
            queue_offset: asked.tran_state_table_offset,
            key: asked.msg_id.unwrap_or_default(),
        };
        let end = Frame::request(RequestCode::EndTransaction, &end_header(&half, COMMIT, true), Bytes::new());
        producer.put(end.oneway()).await;
    }
    let deadline = Instant::now() + PATIENCE;
    while node.broker.group.state().transactions().count() > 0 {
        assert!(Instant::now() < deadline, "{} are open", node.broker.group.state().transactions().count());
        sleep(Duration::from_millis(10)).await;
    }
    let stored = node.broker.group.queues().bounds("orders", 0).map(|(_, end)| end);
    assert_eq!(stored, Some(COUNT as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_at_a_follower_is_asked_there_and_ends_its_transaction_there() {
    let transactions = TransactionSettings { timeout: Duration::from_secs(1), ..quick() };
    let nodes = Node::cluster_set(3, Settings { transactions, ..Settings::default() }).await;
    for node in &nodes {
        node.reach_level().await;
    }
    let (mut client, mut producer) = (nodes[1].client_of_group().await, nodes[2].client().await);
    register(&mut producer).await;
    let asked_about = begin(&mut client, "A", "").await;
    let ended = begin(&mut client, "B", "").await;
    // Through a follower, twice, by another node's client.
    expect(&end(&mut client, &ended, COMMIT).await, ResponseCode::Success);
    let mut other = nodes[0].client().await;
    expect(&end(&mut other, &ended, COMMIT).await, ResponseCode::Success);
    let (asked, _) = question(&mut producer).await;
    assert_eq!((asked.commit_log_offset, asked.msg_id.as_deref()), (asked_about.position, Some("A")));
    let answer = end_header(&asked_about, COMMIT, true);
    producer.put(Frame::request(RequestCode::EndTransaction, &answer, Bytes::new()).oneway()).await;
    assert_eq!(bodies(&mut client, "orders", 2).await, ["B", "A"]);
}

/// The answer may be lost with the leader: the node that the client knows asks the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_i1_an_end_while_the_leader_changes_takes_effect_once() {
    const ROUNDS: usize = 15;
    let nodes = Node::cluster(3).await;
    for node in &nodes {
        node.reach_level().await;
    }
    let (mut client, mut other) = (nodes[2].client_of_group().await, nodes[1].client().await);
    for round in 0..ROUNDS {
        let half = begin(&mut client, &round.to_string(), "").await;
        let repeat =
            Frame::request(RequestCode::EndTransaction, &end_header(&half, COMMIT, true), Bytes::new());
        let (mut answer, _, _) = tokio::join!(
            end(&mut client, &half, COMMIT),
            lead(&nodes, (round + 1) % 3),
            other.put(repeat.oneway())
        );
        // On a stalled machine it may find no leader for as long as a node waits for one: nothing was changed then.
        let deadline = Instant::now() + PATIENCE;
        while answer.code == ResponseCode::ServiceNotAvailable.code() && Instant::now() < deadline {
            answer = end(&mut client, &half, COMMIT).await;
        }
        expect(&answer, ResponseCode::Success);
    }
    let stored = bodies(&mut client, "orders", ROUNDS).await;
    let expected: Vec<String> = (0..ROUNDS).map(|round| round.to_string()).collect();
    assert_eq!(stored, expected);
    for node in &nodes {
        assert_eq!(node.broker.group.status().unmet_preconditions, 0, "transitions.I2");
    }
}
