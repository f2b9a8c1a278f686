//! `turns.I1` where the leader of a commit goes away, refuses it, or is of an earlier build: a question that comes to the same node
//! behind a oneway commit is told of it.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;
use folio_protocol::header::{OffsetResponseHeader, QueryConsumerOffsetHeader, UpdateConsumerOffsetHeader};
use folio_raft::proposal::ProposeError;

use crate::failover::lead;
use crate::misheard::{self, FORWARDED_COMMIT};
use crate::node::{Client, Node, expect, header};

/// After this a oneway commit is given up (`OFFSET_PATIENCE`).
const GIVEN_UP: Duration = Duration::from_secs(6);

fn commit_to(topic: &str, commit_offset: i64) -> Frame {
    let (consumer_group, topic) = ("g".into(), topic.into());
    let header = UpdateConsumerOffsetHeader { consumer_group, topic, queue_id: 0, commit_offset };
    Frame::request(RequestCode::UpdateConsumerOffset, &header, Bytes::new())
}

fn commit(offset: i64) -> Frame {
    commit_to("orders", offset)
}

async fn offset_of(client: &mut Client) -> i64 {
    let question = QueryConsumerOffsetHeader {
        consumer_group: "g".into(),
        topic: "orders".into(),
        queue_id: 0,
        set_zero_if_not_found: Some(false),
    };
    let answer = client.ask(RequestCode::QueryConsumerOffset, &question).await;
    expect(&answer, ResponseCode::Success);
    header::<OffsetResponseHeader>(&answer).offset
}

/// A client of a follower, with an offset of 1.
async fn client_of_follower(nodes: &[Node]) -> Client {
    let mut client = nodes[1].client_of_group().await;
    client.send("orders", "", "x").await;
    expect(&client.call(commit(1)).await, ResponseCode::Success);
    client
}

fn unknown() -> String {
    ProposeError::Unknown("the leader changed".into()).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_i1_a_oneway_commit_that_its_leader_did_not_store_was_not_asked_for_again() {
    let nodes = Node::cluster(3).await;
    let mut client = client_of_follower(&nodes).await;
    let unavailable = || misheard::told(ResponseCode::ServiceNotAvailable, "the leader's disk is full");
    let unclear = || misheard::told(ResponseCode::SystemError, &unknown());
    let ways =
        [vec![misheard::lost()], vec![unavailable()], vec![unclear()], vec![misheard::lost(), unavailable()]];
    for (answers, offset) in ways.into_iter().zip(100..) {
        let case = format!("{answers:?}");
        nodes[0].misheard.answer(answers);
        client.put(commit(offset).oneway()).await;
        assert_eq!(offset_of(&mut client).await, offset, "turns.I1: {case}");
        assert_eq!(nodes[0].misheard.left(), 0, "{case}");
    }
}

/// A leader of an earlier build says no more of a oneway commit than that it was taken: nobody asks again, and nothing is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_oneway_commit_is_done_when_a_leader_of_an_earlier_build_has_taken_it() {
    let nodes = Node::cluster(3).await;
    let mut client = client_of_follower(&nodes).await;
    nodes[0].misheard.answer([Bytes::from_static(&[2])]);
    client.put(commit(100).oneway()).await;
    assert_eq!(offset_of(&mut client).await, 1, "it was not asked for again");
}

/// A commit that is waited for is asked for again as well; where that does not help, its client is told that nobody knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forward_i2_a_commit_without_an_answer_is_asked_for_again_and_at_last_of_unknown_outcome() {
    let nodes = Node::cluster(3).await;
    let mut client = client_of_follower(&nodes).await;
    nodes[0].misheard.answer([misheard::lost(), misheard::lost()]);
    expect(&client.call(commit(7)).await, ResponseCode::Success);
    assert_eq!(offset_of(&mut client).await, 7);
    nodes[0].misheard.answer([misheard::lost()]);
    nodes[0].misheard.answer(vec![misheard::not_leader(); 10_000]);
    let answer = client.call(commit(8)).await;
    expect(&answer, ResponseCode::SystemError);
    assert!(
        answer.remark.as_ref().is_some_and(|remark| remark.starts_with("[OUTCOME_UNKNOWN] ")),
        "{answer:?}"
    );
    nodes[0].misheard.clear();
}

/// The commit waited to be handed out again, and the question did not: this node led by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_i1_a_question_at_a_new_leader_overtook_a_commit_that_waited_there_for_a_leader() {
    let nodes = Node::cluster(3).await;
    let mut client = client_of_follower(&nodes).await;
    for node in &nodes {
        node.misheard.answer(vec![misheard::not_leader(); 10_000]);
    }
    for offset in 100..120 {
        client.put(commit(offset).oneway()).await;
        let begun = Instant::now();
        let in_time = lead(&nodes, 1).await && begun.elapsed() < GIVEN_UP / 2;
        if in_time {
            assert_eq!(offset_of(&mut client).await, offset, "turns.I1");
            return;
        }
        // On a busy machine: the commit may have been given up.
        while !lead(&nodes, 0).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    panic!("leadership is not handed over in time");
}

/// Bytes of a forwarded oneway commit, as `server/src/forward.rs` has them.
fn forwarded(frame: &Frame) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(FORWARDED_COMMIT);
    out.put_bytes(0, 24);
    out.put_slice(&[4, 127, 0, 0, 1, 0, 9, 0, 0]);
    frame.encode(&mut out).expect("a frame");
    out.freeze()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_i1_a_leader_kept_to_itself_what_became_of_a_oneway_commit() {
    let nodes = Node::cluster(3).await;
    let mut client = client_of_follower(&nodes).await;
    for (topic, code) in [("orders", ResponseCode::Success), ("nothing", ResponseCode::TopicNotExist)] {
        let request = forwarded(&commit_to(topic, 5).oneway());
        let asked = nodes[1].broker.group.call(nodes[0].broker.node_id(), request, Duration::from_secs(30));
        let answer = asked.await.expect("an answer");
        assert_eq!(answer.first(), Some(&0), "{topic}: a frame follows");
        let frame = Frame::decode(&mut BytesMut::from(&answer[9..])).expect("a frame").expect("all of it");
        expect(&frame, code);
    }
    assert_eq!(offset_of(&mut client).await, 5);
}
