//! What clients can make a node use, of a real process: files, memory, connections; and who is served all the same.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;
use serde_json::Value;

use super::node::{Node, PATIENCE, ask, folio, send_request};

/// A `folio` command that may have so many files open.
fn folio_with_files(limit: u32) -> Command {
    let mut command = Command::new("sh");
    let script = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_folio")]);
    command.stdin(Stdio::null()).env_remove("FOLIO_LOG");
    command
}

fn many_connections(config: String) -> String {
    config.replace(
        "connections = 20\nconnections_per_address = 20\n",
        "connections = 10000\nconnections_per_address = 10000\n",
    )
}

fn message(number: usize, bytes: usize) -> Frame {
    send_request(0, Some(&format!("K{number}")), vec![b'x'; bytes])
}

fn stored(socket: &mut TcpStream, number: usize, bytes: usize) {
    let answer = ask(socket, &message(number, bytes)).expect("an answer");
    assert_eq!(answer.code, ResponseCode::Success.code(), "{:?}", answer.remark);
}

/// What `folio cluster status` says of the node.
fn status(node: &Node) -> Option<Value> {
    let address = format!("127.0.0.1:{}", node.port + 1);
    let output = folio().args(["cluster", "status", "--json", "-n", &address]).output().unwrap();
    let nodes: Vec<Value> = serde_json::from_slice(&output.stdout).ok()?;
    nodes.into_iter().next().filter(|node| node["role"] != "unreachable")
}

fn used(status: &Value, resource: &str) -> u64 {
    status["resources"][resource]["used"].as_u64().unwrap_or_else(|| panic!("no {resource} in {status}"))
}

/// Idle connections took every file that the process may open: the next segment could not be made, and the node ended.
#[test]
fn descriptors_i1_connections_up_to_the_limit_of_open_files_leave_the_log_its_segments() {
    let mut node = Node::start_changed(folio_with_files(300), many_connections);
    let mut producer = node.connect();
    stored(&mut producer, 0, 10);
    let idle: Vec<TcpStream> = (0..400).map(|_| node.connect()).collect();
    // Three segments of 16 MiB.
    for number in 1..=40 {
        stored(&mut producer, number, 1 << 20);
    }
    assert_eq!(node.child.try_wait().unwrap(), None, "it ended:\n{}", node.log());
    let log = node.log();
    assert!(log.contains("86 client connections instead of limits.connections = 10000"), "{log}");
    let refusals = log.lines().filter(|line| line.contains("connection refused")).count();
    assert!((1..=60).contains(&refusals), "{refusals} lines");
    let status = status(&node).expect("an operator is served");
    assert!(used(&status, "connections") <= 86 && used(&status, "open_files") <= 300, "{status}");
    drop(idle);
}

/// With all connections taken the operator's question was refused as everybody's.
#[test]
fn i9_an_operator_is_served_when_clients_have_taken_every_connection() {
    let node = Node::start();
    let request = Frame { code: RequestCode::GetBrokerClusterInfo.code(), ..Frame::default() };
    let mut open = Vec::new();
    let refusal = loop {
        let mut socket = node.connect();
        let answer = ask(&mut socket, &request).expect("an answer, also for one too many");
        if answer.code != ResponseCode::Success.code() {
            break answer;
        }
        open.push(socket);
        assert!(open.len() <= 20, "more than the limit");
    };
    assert_eq!(refusal.code, ResponseCode::SystemBusy.code());
    let remark = refusal.remark.unwrap_or_default();
    assert!(remark.contains("20 connections are open, the limit is limits.connections"), "{remark}");
    // More than all places for connections that are only refused.
    let silent: Vec<TcpStream> = (0..60).map(|_| node.connect()).collect();
    let status = status(&node).expect("the operator is served");
    // Those that asked whether the node leads may still have been closing.
    assert!((15..=20).contains(&used(&status, "connections")), "{status}");
    assert_eq!(status["resources"]["connections"]["limit"], 20);
    assert_eq!(status["resources"]["connections"]["key"], "limits.connections");
    drop((open, silent));
}

fn resident_bytes(node: &Node) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

/// Sixty halves of frames of 16 MiB took a gigabyte, and it was kept after the connections were closed.
#[test]
fn i7_half_frames_take_no_more_memory_than_the_limit_and_give_it_back() {
    let limit =
        |config: String| many_connections(config).replace("[limits]\n", "[limits]\nmemory = \"64MiB\"\n");
    let node = Node::start_changed(folio(), |config| {
        limit(config).replace("frame_seconds = 1", "frame_seconds = 3")
    });
    let mut producer = node.connect();
    stored(&mut producer, 0, 10);
    let before = resident_bytes(&node);
    let mut whole = BytesMut::new();
    Frame { code: RequestCode::HeartBeat.code(), ..Frame::default() }
        .with_body(vec![0; 15 << 20])
        .encode(&mut whole)
        .unwrap();
    let half = &whole[..14 << 20];
    let mut most = 0;
    std::thread::scope(|scope| {
        let hostile = || {
            let mut socket = node.connect();
            socket.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
            drop(socket.write_all(half));
            // Until it is closed.
            while socket.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {}
        };
        let attackers: Vec<_> = (0..60).map(|_| scope.spawn(hostile)).collect();
        let mut number = 1;
        while !attackers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let sent = Instant::now();
            stored(&mut producer, number, 1_000);
            assert!(sent.elapsed() < Duration::from_secs(5), "{:?}", sent.elapsed());
            number += 1;
            most = most.max(resident_bytes(&node));
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let grown = most.saturating_sub(before) >> 20;
    assert!(grown < 200, "{grown} MiB more than before");
    let deadline = Instant::now() + PATIENCE;
    while status(&node).is_none_or(|status| used(&status, "frame_bytes") > 0) {
        assert!(Instant::now() < deadline, "what closed connections held is not given back");
    }
    stored(&mut producer, 1_000_000, 4 << 20);
}
