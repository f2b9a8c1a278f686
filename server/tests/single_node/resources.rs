//! What clients make a node hold is bounded, and each of them is served all the same.

use std::time::Duration;

use bytes::BytesMut;
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::flags::pull_sys_flag;
use folio_protocol::frame::Frame;
use folio_protocol::header::{GetMaxOffsetHeader, PullMessageHeader, QueryConsumerOffsetHeader};
use folio_server::net::{NetConfig, Share};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::node::{Node, expect, message, messages, pull_header, send_header};

fn limited(change: impl FnOnce(&mut NetConfig)) -> NetConfig {
    let mut net = NetConfig::with_memory(64 << 20);
    change(&mut net);
    net
}

fn encoded(request: Frame, count: i32) -> BytesMut {
    let mut out = BytesMut::new();
    for opaque in 0..count {
        Frame { opaque, ..request.clone() }.encode(&mut out).expect("a frame");
    }
    out
}

/// Reads this many answers, each of them a success or one of these codes.
async fn answers(socket: &mut (impl AsyncReadExt + Unpin), count: usize, codes: &[ResponseCode]) {
    let mut received = BytesMut::new();
    for _ in 0..count {
        let answer = loop {
            if let Some(frame) = Frame::decode(&mut received).expect("frames") {
                break frame;
            }
            let read = tokio::time::timeout(Duration::from_secs(60), socket.read_buf(&mut received)).await;
            assert!(read.expect("an answer in time").expect("readable") > 0, "it was closed");
        };
        assert!(codes.iter().any(|code| code.code() == answer.code), "{} {:?}", answer.code, answer.remark);
    }
}

/// 60,000 at once raised what others waited to 1.1 s. Beyond the limit they wait in the sockets, and each is answered.
#[tokio::test]
async fn net_i5_pipelined_queries_beyond_the_limit_wait_unread_and_are_all_answered() {
    let node = Node::start_limited(limited(|net| net.requests_max = 256)).await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "one").await;
    let query = QueryConsumerOffsetHeader {
        consumer_group: "g".into(),
        topic: "orders".into(),
        queue_id: 0,
        set_zero_if_not_found: None,
    };
    let requests =
        encoded(Frame::request(RequestCode::QueryConsumerOffset, &query, bytes::Bytes::new()), 5_000);
    let (mut reader, mut writer) = TcpStream::connect(node.address).await.expect("a connection").into_split();
    let writing = tokio::spawn(async move {
        writer.write_all(&requests).await.expect("written");
        writer
    });
    answers(&mut reader, 5_000, &[ResponseCode::Success]).await;
    drop(writing.await.expect("no panic"));
    assert_eq!(node.remoting.resources.budget().used(Share::Requests), 0);
    client.send("orders", "", "two").await;
}

/// Held pulls may never be answered: a connection full of them serves on.
#[tokio::test]
async fn net_i5_held_pulls_do_not_keep_their_connection_from_being_read() {
    let node = Node::start_limited(limited(|net| net.requests_max = 16)).await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "one").await;
    let pull = pull_header("orders", 1);
    let held = PullMessageHeader {
        sys_flag: pull.sys_flag | pull_sys_flag::SUSPEND,
        suspend_timeout_millis: 60_000,
        ..pull
    };
    for _ in 0..100 {
        client.put(Frame::request(RequestCode::PullMessage, &held, bytes::Bytes::new())).await;
    }
    let max = GetMaxOffsetHeader { topic: "orders".into(), queue_id: 0, committed: true };
    let answer = client.ask(RequestCode::GetMaxOffset, &max).await;
    expect(&answer, ResponseCode::Success);
    assert_eq!(node.broker.polls.len(), 100);
}

/// Twenty clients that did not read held 1.1 GB.
#[tokio::test]
async fn net_i3_clients_that_do_not_read_hold_no_more_than_the_nodes_share_and_are_closed() {
    let node = Node::start_limited(limited(|net| net.write_timeout = Duration::from_secs(600))).await;
    let mut client = node.client_of_group().await;
    let answer = client.call(message(&send_header("orders", ""), &"x".repeat(1 << 20))).await;
    expect(&answer, ResponseCode::Success);
    let pulls =
        encoded(Frame::request(RequestCode::PullMessage, &pull_header("orders", 0), bytes::Bytes::new()), 30);
    let mut deaf = Vec::new();
    let connected = node.listener.open();
    for _ in 0..20 {
        let mut socket = TcpStream::connect(node.address).await.expect("a connection");
        // One that was closed meanwhile takes no more.
        drop(socket.write_all(&pulls).await);
        deaf.push(socket);
    }
    let budget = node.remoting.resources.budget();
    // Nobody reads before that: on a busy machine the first would be done before the last has its answers.
    let closing = async {
        while node.listener.open() >= connected + deaf.len() {
            assert!(budget.used(Share::Answers) <= budget.limit(Share::Answers));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), closing).await.expect("one is closed");
    // Each of the last requests is served, or its connection is closed.
    let mut closed = 0;
    for socket in &mut deaf {
        let mut read = 0;
        let mut part = vec![0; 1 << 20];
        assert!(budget.used(Share::Answers) <= budget.limit(Share::Answers));
        while read < 30 << 20 {
            let some = tokio::time::timeout(Duration::from_secs(60), socket.read(&mut part)).await;
            match some.expect("answers, or the end") {
                Ok(0) | Err(_) => break,
                Ok(some) => read += some,
            }
        }
        closed += usize::from(read < 30 << 20);
    }
    assert!(closed >= 1, "nobody was closed");
    let answer = client.ask(RequestCode::PullMessage, &pull_header("orders", 0)).await;
    assert_eq!(messages(&answer.body).len(), 1);
}

/// Pulls of messages that were in memory no more were all read at once, into memory of no share.
#[tokio::test]
async fn disk_reads_i1_pulls_of_what_is_on_disk_wait_for_their_client_and_keep_no_other_waiting() {
    let node = Node::start_limited(limited(|_| {})).await;
    let mut client = node.client_of_group().await;
    for _ in 0..14 {
        let answer = client.call(message(&send_header("orders", ""), &"x".repeat(3 << 20))).await;
        expect(&answer, ResponseCode::Success);
    }
    let pulls =
        encoded(Frame::request(RequestCode::PullMessage, &pull_header("orders", 0), bytes::Bytes::new()), 60);
    let mut deaf = TcpStream::connect(node.address).await.expect("a connection");
    let budget = node.remoting.resources.budget();
    let all = budget.reads().try_take(usize::MAX).expect("nothing is read");
    deaf.write_all(&pulls).await.expect("written");
    // What is in memory needs none.
    let answer = client.ask(RequestCode::PullMessage, &pull_header("orders", 13)).await;
    assert_eq!(messages(&answer.body).len(), 1);
    let early = tokio::time::timeout(Duration::from_millis(300), deaf.readable()).await;
    assert!(early.is_err(), "it was read into memory of no share");
    drop(all);
    deaf.readable().await.expect("an answer");
    for _ in 0..5 {
        let answer = client.ask(RequestCode::PullMessage, &pull_header("orders", 0)).await;
        assert_eq!(messages(&answer.body).len(), 1);
    }
    answers(&mut deaf, 60, &[ResponseCode::Success]).await;
    // Given back once the answer is in its client's queue, which may read it first.
    while budget.reads().bytes() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
