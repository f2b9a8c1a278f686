//! A planned stop under load: nobody is left without an answer, and no answer is lost.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;
use folio_protocol::header::GetMaxOffsetHeader;

use super::cluster::{Running, send};
use super::node::{PATIENCE, ask, send_request};

/// Requests one connection has under way.
const OUTSTANDING: usize = 64;
const QUEUES: i32 = 4;

/// What one connection saw until its end.
#[derive(Debug, Default)]
struct Seen {
    stored: u64,
    refused: u64,
    other: Vec<(i32, Option<String>)>,
    /// Sent and not answered: what the node did not take any more.
    unanswered: usize,
    /// The connection ended by a reset, not by the peer's orderly close.
    reset: bool,
}

fn message(opaque: i32) -> Frame {
    Frame { opaque, ..send_request(opaque % QUEUES, None, vec![b'x'; 200]) }
}

/// Sends as fast as it is answered, until it is told to stop, is refused, or the connection ends.
struct Sender {
    socket: TcpStream,
    received: BytesMut,
    waiting: HashSet<i32>,
    next: i32,
    seen: Seen,
    /// As in `seen`, for others to look at.
    stored: Arc<AtomicU64>,
}

/// A sender on a thread of its own.
struct Started {
    thread: JoinHandle<Seen>,
    stored: Arc<AtomicU64>,
}

impl Sender {
    fn start(address: &str, stop: Arc<AtomicBool>) -> Started {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let stored = Arc::new(AtomicU64::new(0));
        let sender = Sender {
            socket,
            received: BytesMut::new(),
            waiting: HashSet::new(),
            next: 0,
            seen: Seen::default(),
            stored: stored.clone(),
        };
        Started { thread: std::thread::spawn(move || sender.run(&stop)), stored }
    }

    fn run(mut self, stop: &AtomicBool) -> Seen {
        let mut goes_on = true;
        loop {
            goes_on &= !stop.load(Ordering::Relaxed) && self.seen.refused == 0;
            while goes_on && self.waiting.len() < OUTSTANDING {
                goes_on = self.send();
            }
            let told_to_stop = stop.load(Ordering::Relaxed) && self.waiting.is_empty();
            if told_to_stop || !self.receive() {
                self.seen.unanswered = self.waiting.len();
                return self.seen;
            }
        }
    }

    fn send(&mut self) -> bool {
        let mut out = BytesMut::new();
        message(self.next).encode(&mut out).unwrap();
        // What the peer closed its side on meanwhile is found out by reading.
        let sent = self.socket.write_all(&out).is_ok();
        if sent {
            self.waiting.insert(self.next);
            self.next += 1;
        }
        sent
    }

    /// Reads once; false when the connection has ended.
    fn receive(&mut self) -> bool {
        let mut chunk = [0; 64 << 10];
        match self.socket.read(&mut chunk) {
            Ok(0) => return false,
            Ok(read) => self.received.extend_from_slice(&chunk[..read]),
            Err(error) => {
                assert!(
                    error.kind() != ErrorKind::WouldBlock,
                    "no answer within {PATIENCE:?}: {:?}",
                    self.seen
                );
                self.seen.reset = true;
                return false;
            }
        }
        while let Some(answer) = Frame::decode(&mut self.received).unwrap() {
            assert!(self.waiting.remove(&answer.opaque), "{answer:?} answers nothing");
            let refused =
                answer.remark.as_ref().is_some_and(|remark| remark.contains("this node is stopping"));
            match answer.code {
                code if code == ResponseCode::Success.code() => {
                    self.seen.stored += 1;
                    self.stored.store(self.seen.stored, Ordering::Relaxed);
                }
                code if code == ResponseCode::ServiceNotAvailable.code() && refused => self.seen.refused += 1,
                code => self.seen.other.push((code, answer.remark)),
            }
        }
        true
    }
}

/// The next offset of a queue of the topic `orders`.
pub(crate) fn max_offset(address: &str, queue_id: i32) -> u64 {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let header = GetMaxOffsetHeader { topic: "orders".into(), queue_id, committed: false };
    let request = Frame::request(RequestCode::GetMaxOffset, &header, Bytes::new());
    let answer = ask(&mut socket, &request).unwrap();
    assert_eq!(answer.code, ResponseCode::Success.code(), "{answer:?}");
    answer.ext.get("offset").unwrap().parse().unwrap()
}

#[test]
fn a_leader_stopped_under_load_answers_all_it_took_and_no_client_sees_a_failure() {
    let running = Running::start();
    let (leader_id, brokers) = (running.leader(), running.brokers());
    let broker = |id: u64| brokers[id as usize - 1].clone();
    let at_follower = broker(leader_id % 3 + 1);
    let created = ask(&mut TcpStream::connect(broker(leader_id)).unwrap(), &message(0)).unwrap();
    assert_eq!(created.code, ResponseCode::Success.code(), "{created:?}");

    let (stays, goes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let here: Vec<_> = (0..4).map(|_| Sender::start(&broker(leader_id), goes.clone())).collect();
    let there: Vec<_> = (0..2).map(|_| Sender::start(&at_follower, stays.clone())).collect();
    std::thread::sleep(Duration::from_millis(500));
    let deadline = Instant::now() + PATIENCE;
    while here.iter().chain(&there).any(|sender| sender.stored.load(Ordering::Relaxed) == 0) {
        assert!(Instant::now() < deadline, "not every sender gets answers\n{}", running.out());
        std::thread::sleep(Duration::from_millis(20));
    }
    send("TERM", &running.children()[leader_id as usize - 1]);
    running.wait_for(&format!("node {leader_id} has ended"));
    std::thread::sleep(Duration::from_millis(500));
    stays.store(true, Ordering::Relaxed);

    let here: Vec<Seen> = here.into_iter().map(|sender| sender.thread.join().unwrap()).collect();
    let there: Vec<Seen> = there.into_iter().map(|sender| sender.thread.join().unwrap()).collect();
    for seen in &here {
        assert!(seen.stored > 0 && seen.other.is_empty(), "{here:?}\n{}", running.out());
        assert!(!seen.reset, "{here:?}\n{}", running.out());
    }
    let log = running.log(leader_id);
    assert!(log.contains("node stopped") && !log.contains("unanswered"), "{here:?}\n{log}");
    for seen in &there {
        assert!(seen.stored > 0 && seen.other.is_empty(), "{there:?}\n{}", running.out());
        assert!(seen.unanswered == 0 && seen.refused == 0 && !seen.reset, "{there:?}\n{}", running.out());
    }
    let answered: u64 = here.iter().chain(&there).map(|seen| seen.stored).sum();
    let stored: u64 = (0..QUEUES).map(|queue| max_offset(&at_follower, queue)).sum();
    assert_eq!(stored, answered + 1, "a message without its answer, or the reverse");
}
