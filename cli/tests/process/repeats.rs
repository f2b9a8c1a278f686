//! A client's retry finds the first one through the death of the leader, while it hangs, and after a restart.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use folio_protocol::code::ResponseCode;
use folio_protocol::frame::Frame;
use folio_protocol::header::{Header, SendMessageResponseHeader};
use folio_raft::proposal::PROMPT;

use super::cluster::{Running, send};
use super::node::{Node, PATIENCE, ask, folio, send_request};

fn message(key: &str, queue_id: i32, body: &'static str) -> Frame {
    send_request(queue_id, Some(key), body)
}

/// Sends, as often as it is refused: right after a start or a death nobody leads.
fn stored(address: &str, request: &Frame) -> SendMessageResponseHeader {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = TcpStream::connect(address).ok().and_then(|mut socket| ask(&mut socket, request));
        match answer {
            Some(answer) if answer.code == ResponseCode::Success.code() => {
                return SendMessageResponseHeader::from_ext(&answer.ext).unwrap();
            }
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_send_repeated_after_the_leaders_death_gets_the_first_ones_offset() {
    let running = Running::start();
    let (leader, brokers) = leader_of(&running);
    let (at_leader, survivor) = (&brokers[leader as usize - 1], &brokers[leader as usize % 3]);
    let firsts: Vec<_> = (0..10)
        .map(|number| stored(at_leader, &message(&format!("K{number}"), number % 4, "hello")))
        .collect();
    send("KILL", &running.children()[leader as usize - 1]);
    for (number, first) in firsts.iter().enumerate() {
        // To another queue, as a client's second attempt goes.
        let again = stored(survivor, &message(&format!("K{number}"), (number as i32 + 1) % 4, "hello"));
        assert_eq!(again, *first);
    }
    let new = stored(survivor, &message("K0", 0, "with another body"));
    assert_eq!((new.queue_id, new.queue_offset), (0, 3), "queue 0 had three of the ten");
}

#[test]
fn a_restarted_node_knows_what_was_stored_before_whether_it_was_stopped_or_killed() {
    let mut node = Node::start();
    let address = format!("127.0.0.1:{}", node.port + 1);
    let first = stored(&address, &message("A", 0, "hello"));
    for (run, signal) in ["TERM", "KILL", "TERM"].into_iter().enumerate() {
        node.signal(signal);
        node.wait();
        let log = File::create(node.dir.path().join("log")).unwrap();
        let config = node.dir.path().join("node.toml");
        node.child = folio().args(["node", "-c"]).arg(config).stderr(log).spawn().unwrap();
        assert_eq!(stored(&address, &message("A", 1, "hello")), first, "after {signal}");
        let new = stored(&address, &message(&format!("B{run}"), 0, "hello"));
        assert_eq!(new.queue_offset, 1 + run as i64);
        assert_eq!(node.status().unwrap().repeats, 1);
    }
}

#[test]
fn with_few_keys_an_old_message_is_forgotten_and_without_the_window_every_one_is() {
    for (section, forgets, knows) in
        [("[dedup]\nkeys = 6\n", true, true), ("[dedup]\nenabled = false\n", true, false)]
    {
        let node = Node::start_with(section);
        let address = format!("127.0.0.1:{}", node.port + 1);
        let send = |key: &str| stored(&address, &message(key, 0, "hello")).queue_offset;
        let first = send("A");
        for number in 0..8 {
            send(&format!("B{number}"));
        }
        assert_eq!((first, send("B7") == 8), (0, knows), "{section}");
        assert_eq!(send("A") != 0, forgets, "{section}");
    }
}

/// One attempt of an impatient client; `None` if it does not know what became of it.
fn attempt(address: &str, request: &Frame) -> Option<Frame> {
    let mut socket = TcpStream::connect(address).ok()?;
    socket.set_read_timeout(Some(Duration::from_millis(150))).ok()?;
    ask(&mut socket, request)
}

#[test]
fn impatient_clients_store_each_message_once_while_the_leader_dies() {
    let running = Running::start();
    let (leader, brokers) = leader_of(&running);
    let survivor = &brokers[leader as usize % 3];
    stored(survivor, &message("creates the topic", 0, "hello"));
    let end = Instant::now() + Duration::from_secs(4);
    let writers: Vec<_> = (0..12)
        .map(|writer| {
            let brokers = brokers.clone();
            std::thread::spawn(move || write(writer, &brokers, end))
        })
        .collect();
    std::thread::sleep(Duration::from_millis(1_500));
    send("KILL", &running.children()[leader as usize - 1]);
    let (mut sent, mut retried) = (0, 0);
    for writer in writers {
        let (own, again) = writer.join().unwrap();
        (sent, retried) = (sent + own, retried + again);
    }
    assert!(retried > 0, "the death of the leader was not noticed");
    let stored: u64 = (0..4).map(|queue| super::drain::max_offset(survivor, queue)).sum();
    assert_eq!(stored, sent + 1, "{retried} attempts were repeats\n{}", running.out());
}

/// Sends one message after the other, each until it is acknowledged; how many, and how many attempts failed.
fn write(writer: usize, brokers: &[String], end: Instant) -> (u64, u64) {
    let (mut sent, mut retried, mut attempts) = (0, 0, writer);
    while Instant::now() < end {
        let key = format!("W{writer}-{sent}");
        loop {
            attempts += 1;
            let request = message(&key, attempts as i32 % 4, "hello");
            let answer = attempt(&brokers[attempts % brokers.len()], &request);
            if answer.is_some_and(|answer| answer.code == ResponseCode::Success.code()) {
                break;
            }
            retried += 1;
            assert!(Instant::now() < end + PATIENCE, "{key} is never stored");
        }
        sent += 1;
    }
    (sent, retried)
}

/// One connection that keeps its answers apart.
struct Connection(TcpStream);

impl Connection {
    fn to(address: &str) -> Connection {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Connection(socket)
    }

    fn put(&mut self, request: &Frame) {
        let mut bytes = BytesMut::new();
        request.encode(&mut bytes).unwrap();
        self.0.write_all(&bytes).unwrap();
    }

    fn stored(&mut self, request: &Frame) -> SendMessageResponseHeader {
        let answer = ask(&mut self.0, request).unwrap();
        assert_eq!(answer.code, ResponseCode::Success.code(), "{:?}", answer.remark);
        SendMessageResponseHeader::from_ext(&answer.ext).unwrap()
    }
}

fn leader_of(running: &Running) -> (u64, Vec<String>) {
    (running.leader(), running.brokers())
}

/// The client's connection, to a follower, outlives the leader: what was answered on it promptly is no retry.
#[test]
fn dedup_i5_a_new_leader_asks_the_node_that_the_client_is_connected_to() {
    let running = Running::start();
    let (leader, brokers) = leader_of(&running);
    let (follower, other) = (leader % 3, (leader + 1) % 3);
    let mut client = Connection::to(&brokers[follower as usize]);
    stored(&brokers[other as usize], &message("creates the topic", 0, "hello"));
    let started = Instant::now();
    let first = client.stored(&message("A", 0, "hello"));
    let prompt = started.elapsed() < PROMPT;
    send("KILL", &running.children()[leader as usize - 1]);
    let again = stored(&brokers[other as usize], &message("A", 0, "hello"));
    assert!(!prompt || again.queue_offset == first.queue_offset + 1, "{first:?} {again:?}");
    // The node that has the connection may have become the leader itself.
    let (late, third) = (Instant::now(), client.stored(&message("A", 0, "hello")));
    assert!(!prompt || late.elapsed() >= PROMPT || third.queue_offset == again.queue_offset + 1);
}

/// What a hung leader has in its sockets is sent again elsewhere meanwhile, and must not be stored when it goes on.
#[test]
fn a_send_that_waits_in_a_hung_leader_is_not_stored_after_its_retry() {
    for closes in [false, true] {
        let running = Running::start();
        let (leader, brokers) = leader_of(&running);
        stored(&brokers[0], &message("creates the topic", 0, "hello"));
        let pid = &running.children()[leader as usize - 1];
        let mut client = Connection::to(&brokers[leader as usize - 1]);
        client.stored(&message("before", 0, "hello"));
        send("STOP", pid);
        client.put(&message("A", 0, "hello"));
        std::thread::sleep(PROMPT + Duration::from_millis(200));
        let survivor = &brokers[leader as usize % 3];
        let mut retrying = Connection::to(survivor);
        let retried = loop {
            let answer = ask(&mut retrying.0, &message("A", 1, "hello")).unwrap();
            if answer.code == ResponseCode::Success.code() {
                break SendMessageResponseHeader::from_ext(&answer.ext).unwrap();
            }
        };
        if closes {
            drop(client);
            send("CONT", pid);
        } else {
            send("CONT", pid);
            let answer = read(&mut client.0);
            let late = SendMessageResponseHeader::from_ext(&answer.ext).ok();
            let refused = answer.code != ResponseCode::Success.code();
            assert!(refused || late.as_ref() == Some(&retried), "{answer:?} {retried:?}");
        }
        // Behind everything that the woken node has brought to the new leader.
        stored(&brokers[leader as usize - 1], &message("behind", 0, "hello"));
        let all: u64 = (0..4).map(|queue| super::drain::max_offset(survivor, queue)).sum();
        assert_eq!(all, 4, "closes {closes}");
    }
}

/// The next frame.
fn read(socket: &mut TcpStream) -> Frame {
    let mut buffer = BytesMut::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(frame) = Frame::decode(&mut buffer).unwrap() {
            return frame;
        }
        let read = socket.read(&mut chunk).unwrap();
        assert!(read > 0, "the connection ended");
        buffer.extend_from_slice(&chunk[..read]);
    }
}

#[test]
fn dedup_i4_a_retry_that_comes_too_late_is_stored_though_nothing_was_stored_since() {
    let node = Node::start_with("[dedup]\nseconds = 2\n");
    let address = format!("127.0.0.1:{}", node.port + 1);
    let send = || stored(&address, &message("A", 0, "hello")).queue_offset;
    let started = Instant::now();
    let (first, second) = (send(), send());
    assert!(first == second || started.elapsed() > Duration::from_secs(2), "{first} {second}");
    std::thread::sleep(Duration::from_millis(2_100));
    assert_eq!(send(), second + 1);
}
