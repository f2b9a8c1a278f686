//! Whatever a peer sends closes its own connection, with one line that names it and the reason.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;

use super::node::{Node, ask};

/// Sends bytes, waits for the close, and gives back the log's lines about this peer.
fn lines_after(node: &Node, bytes: &[u8]) -> Vec<String> {
    let mut socket = node.connect();
    socket.write_all(bytes).unwrap();
    wait_for_close(&mut socket);
    node.lines_about(&socket)
}

/// The same, again and again until the log has a line about one of these peers: it has one a second of each kind.
fn told_after(node: &Node, bytes: &[u8], reason: &str) -> Vec<String> {
    let deadline = Instant::now() + super::node::PATIENCE;
    loop {
        let mut socket = node.connect();
        socket.write_all(bytes).unwrap();
        wait_for_close(&mut socket);
        let lines = node.lines_about_within(&socket, Duration::from_millis(300));
        if !lines.is_empty() {
            assert!(lines.iter().any(|line| line.contains(reason)), "{lines:?} lack {reason:?}");
            return lines;
        }
        assert!(Instant::now() < deadline, "no line says {reason:?}");
    }
}

fn wait_for_close(socket: &mut TcpStream) {
    let mut rest = [0; 4096];
    // A reset is a close as well.
    while socket.read(&mut rest).is_ok_and(|read| read > 0) {}
}

fn works(socket: &mut TcpStream) -> bool {
    let request = Frame { code: RequestCode::GetBrokerClusterInfo.code(), ..Frame::default() };
    ask(socket, &request).is_some_and(|answer| answer.code == ResponseCode::Success.code())
}

fn whole_frame() -> BytesMut {
    let mut out = BytesMut::new();
    Frame { code: RequestCode::HeartBeat.code(), ..Frame::default() }.encode(&mut out).unwrap();
    out
}

#[test]
fn garbage_closes_its_own_connection_with_one_line_and_disturbs_no_other() {
    let node = Node::start();
    let mut bystander = node.connect();
    assert!(works(&mut bystander));
    let mut lying_header = whole_frame();
    lying_header[5] = 0x7f;
    let mut no_json = whole_frame();
    no_json[8] = b'x';
    let cases: [(&[u8], &str); 7] = [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "not a remoting frame: a frame of 1195725860 bytes"),
        (&[0xff; 64], "too short for its header word"),
        (&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1], "the limit is 16777216"),
        (&[0, 0, 0, 8, 9, 0, 0, 0, 0, 0, 0, 0], "unknown header serialization 9"),
        (&lying_header, "a header of"),
        (&no_json, "malformed JSON header at byte 0"),
        (&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01], "the client speaks TLS and this port is plaintext"),
    ];
    for (bytes, reason) in cases {
        let lines = told_after(&node, bytes, reason);
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].contains("WARN"), "{}", lines[0]);
        assert!(works(&mut bystander), "after {reason}");
    }
}

/// Each bad frame wrote a line: six megabytes in five seconds.
#[test]
fn log_rate_limiter_i1_a_flood_of_bad_frames_has_a_line_a_second() {
    let node = Node::start();
    let started = Instant::now();
    for _ in 0..300 {
        let mut socket = node.connect();
        // A connection too many is closed before it is read.
        drop(socket.write_all(&[0xff; 64]));
        wait_for_close(&mut socket);
    }
    let log = node.log();
    let lines = log.lines().filter(|line| line.contains("too short for its header word")).count();
    let seconds = started.elapsed().as_secs() as usize;
    assert!((1..=seconds + 1).contains(&lines), "{lines} lines in {seconds} s");
    let last = told_after(&node, &[0xff; 64], "too short for its header word");
    assert!(last[0].contains("left_out="), "{last:?}");
}

#[test]
fn half_a_frame_and_then_nothing_is_closed_after_its_time() {
    let node = Node::start();
    let started = Instant::now();
    let whole = whole_frame();
    let lines = lines_after(&node, &whole[..whole.len() - 1]);
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert!(lines.len() == 1 && lines[0].contains("was not complete after 1s"), "{lines:#?}");
}

#[test]
fn one_byte_now_and_then_does_not_keep_a_connection_alive() {
    let node = Node::start();
    let mut socket = node.connect();
    let started = Instant::now();
    let closed = whole_frame().iter().any(|byte| {
        std::thread::sleep(Duration::from_millis(200));
        socket.write_all(&[*byte]).is_err()
    });
    assert!(closed && started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn a_client_that_does_not_read_is_closed_and_the_others_are_served() {
    let node = Node::start();
    let mut deaf = node.connect();
    let mut requests = BytesMut::new();
    for opaque in 0..1_000 {
        let frame = Frame { code: RequestCode::GetBrokerClusterInfo.code(), opaque, ..Frame::default() };
        frame.encode(&mut requests).unwrap();
    }
    deaf.set_write_timeout(Some(super::node::PATIENCE)).unwrap();
    // Until the answers fill what the system buffers, and then our limit.
    for _ in 0..1_000 {
        if deaf.write_all(&requests).is_err() {
            break;
        }
    }
    let lines = node.lines_about(&deaf);
    assert!(lines.len() == 1 && lines[0].contains("the client does not read"), "{lines:#?}");
    assert!(works(&mut node.connect()));
}

#[test]
fn connections_over_the_limit_are_refused_and_room_comes_back() {
    let node = Node::start();
    let mut open = Vec::new();
    let over = loop {
        let mut socket = node.connect();
        if !works(&mut socket) {
            break socket;
        }
        open.push(socket);
        assert!(open.len() <= 20, "more than the limit");
    };
    // The connections that asked whether the node leads may still be closing.
    assert!(open.len() >= 15, "{}", open.len());
    let lines = node.lines_about(&over);
    assert!(lines.len() == 1 && lines[0].contains("the limit is limits.connections"), "{lines:#?}");
    open.truncate(10);
    let deadline = Instant::now() + super::node::PATIENCE;
    while !works(&mut node.connect()) {
        assert!(Instant::now() < deadline, "no room came back");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_request_nobody_knows_is_answered_by_number_and_name() {
    let node = Node::start();
    let mut socket = node.connect();
    let answer = ask(&mut socket, &Frame { code: 7_777, opaque: 42, ..Frame::default() }).unwrap();
    assert_eq!((answer.code, answer.opaque), (ResponseCode::RequestCodeNotSupported.code(), 42));
    assert_eq!(answer.remark.as_deref(), Some(" request type 7777 not supported"));
    let code = RequestCode::ExportRocksdbConfigToJson;
    let answer = ask(&mut socket, &Frame { code: code.code(), ..Frame::default() }).unwrap();
    let remark = " request type 355 (EXPORT_ROCKSDB_CONFIG_TO_JSON) not supported";
    assert_eq!(answer.remark.as_deref(), Some(remark));
}
