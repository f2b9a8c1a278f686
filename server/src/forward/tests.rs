use std::collections::{BTreeMap, BTreeSet};

use bytes::Buf;
use folio_protocol::frame::Serialization;
use folio_raft::proposal::Attempt;

use super::*;

fn status() -> Status {
    Status {
        node_id: 1,
        role: Role::Leader,
        leader: Some(1),
        term: 1,
        committed: 0,
        applied: 0,
        last: None,
        durable_position: 0,
        applied_position: 0,
        members: BTreeMap::new(),
        voters: BTreeSet::new(),
        lag: BTreeMap::new(),
        disk_full: false,
        damaged: 0,
        mended: 0,
        damaged_units: 0,
        mended_units: 0,
        damaged_snapshots: 0,
        repaired_snapshots: 0,
        start_position: 0,
        repeats: 0,
        unmet_preconditions: 0,
        feature_level: 1,
        feature_level_max: 1,
        group_id: None,
        waiting: None,
        no_election: Vec::new(),
        foreign: Vec::new(),
        leader_silence: Duration::ZERO,
        election_threshold: Duration::ZERO,
    }
}

/// With two looks at once, each a read lock, a change between them stopped the whole node: the second
/// waits for the change and the change for the first.
#[test]
fn a_look_for_the_leader_and_a_change_of_it_do_not_wait_for_each_other() {
    const ROUNDS: usize = 1_000_000;
    let (sender, receiver) = watch::channel(status());
    let (done, ended) = std::sync::mpsc::channel();
    for _ in 0..2 {
        let (mut receiver, done) = (receiver.clone(), done.clone());
        std::thread::spawn(move || {
            assert!((0..ROUNDS).all(|_| look(&mut receiver) == (true, Some(1))));
            done.send(())
        });
    }
    std::thread::spawn(move || {
        (0..ROUNDS).for_each(|_| sender.send_modify(|status| status.committed += 1));
        done.send(())
    });
    for _ in 0..3 {
        ended.recv_timeout(Duration::from_secs(120)).expect("nobody waits for ever");
    }
}

fn request() -> Frame {
    Frame {
        code: RequestCode::SendMessageV2.code(),
        opaque: 7,
        serialization: Serialization::Rocketmq,
        ..Frame::default()
    }
    .with_body("hello")
}

fn origin(remote: &str, attempt: Option<Attempt>) -> Origin {
    Origin { remote: remote.parse().unwrap(), is_operator: attempt.is_some(), attempt }
}

#[tokio::test(start_paused = true)]
async fn a_forwarded_request_keeps_its_origin_and_every_byte_that_counts() {
    let order = Order { node: 2, started: 3, number: 4 };
    let connected = Instant::now();
    tokio::time::advance(Duration::from_secs(7)).await;
    let attempt = Attempt { number: 5, arrived: Instant::now(), connected, doubts: true, here: false };
    let origins = [
        (origin("10.1.2.3:4567", None), None),
        (origin("10.1.2.3:4567", Some(attempt)), None),
        (origin("[2001:db8::1]:99", None), Some(order)),
    ];
    tokio::time::advance(Duration::from_millis(300)).await;
    for (origin, order) in origins {
        let mut bytes = encode_request(order, &origin, &request()).unwrap();
        let kind = bytes.get_u8();
        assert_eq!(kind == FORWARD_COMMIT, order.is_some());
        assert_eq!(decode_request(kind, bytes, Instant::now()), Some((order, origin, request())));
    }
}

#[test]
fn a_forwarded_request_that_is_cut_or_too_long_is_refused() {
    let now = Instant::now();
    let attempt = Attempt { number: 5, arrived: now, connected: now, doubts: false, here: false };
    let origin = origin("127.0.0.1:1", Some(attempt));
    for order in [None, Some(Order { node: 2, started: 3, number: 4 })] {
        let mut whole = encode_request(order, &origin, &request()).unwrap();
        let kind = whole.get_u8();
        for cut in 0..whole.len() {
            assert_eq!(decode_request(kind, whole.slice(..cut), now), None, "cut at {cut}");
        }
        let mut longer = BytesMut::from(&whole[..]);
        longer.put_u8(0);
        assert_eq!(decode_request(kind, longer.freeze(), now), None);
    }
}

#[test]
fn answers_come_back_as_what_they_were() {
    let frame = request().response_to(ResponseCode::SystemBusy).with_remark("later");
    let answer = encode_answer(Answer::Frame(frame.clone().into()), 77);
    let (77, Asked::Answered(back)) = decode_answer(answer) else { panic!("a frame was answered") };
    assert_eq!(*back, frame);
    let kind = |answer| match decode_answer(answer).1 {
        Asked::Answered(_) => "frame",
        Asked::Silent => "silent",
        Asked::NotProposed => "not proposed",
        Asked::Unknown(_) => "unknown",
    };
    assert_eq!(kind(encode_answer(Answer::NotLeader, 0)), "not proposed");
    assert_eq!(kind(encode_answer(Answer::Silence, 0)), "silent");
    // An answer that cannot be read says nothing about what the leader did.
    for bytes in [&b""[..], b"\x00", b"\x00garbage!", b"\x00position", b"\x09"] {
        assert_eq!(kind(Bytes::copy_from_slice(bytes)), "unknown");
    }
}

#[tokio::test]
async fn a_reply_that_is_dropped_answers_an_error_and_a_oneway_one_is_silent() {
    let (sender, receiver) = oneshot::channel();
    drop(Reply::to_node(sender, &request()));
    let Ok(Answer::Frame(frame)) = receiver.await else { panic!("an error is answered") };
    assert_eq!((frame.code, frame.opaque), (ResponseCode::SystemError.code(), 7));
    let (sender, receiver) = oneshot::channel();
    drop(Reply::to_node(sender, &request().oneway()));
    assert!(matches!(receiver.await, Ok(Answer::Silence)), "nobody waits for it");
}

#[tokio::test]
async fn turns_i1_the_node_that_forwarded_a_oneway_commit_was_not_told_what_became_of_it() {
    let (sender, receiver) = oneshot::channel();
    let mut reply = Reply::to_node(sender, &request().oneway());
    reply.tell_node();
    assert!(reply.is_oneway(), "its client wants no answer");
    reply.fail(BrokerError::Propose(ProposeError::DiskFull));
    let Ok(Answer::Frame(frame)) = receiver.await else { panic!("it is told") };
    assert!(is_unavailable(&frame));
}

/// The first leader did not answer and the second one refused: whether the first one has stored it is as unknown as before.
#[tokio::test]
async fn forward_i2_a_refusal_after_an_unknown_outcome_does_not_say_that_nothing_was_stored() {
    let reply = || {
        let (sender, receiver) = oneshot::channel();
        let mut reply = Reply::to_node(sender, &request());
        reply.doubt(ServerError::OutcomeUnknown("gone".to_owned()).to_string());
        (reply, receiver)
    };
    let (refused, told) = reply();
    refused.fail(BrokerError::NoLeader);
    let Ok(Answer::Frame(frame)) = told.await else { panic!("an error is answered") };
    assert!(is_outcome_unknown(&frame), "{frame:?}");
    let (stored, told) = reply();
    stored.done();
    let Ok(Answer::Frame(frame)) = told.await else { panic!("success is answered") };
    assert_eq!(frame.code, ResponseCode::Success.code());
}
