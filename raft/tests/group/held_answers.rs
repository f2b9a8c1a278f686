//! A leader whose peers' bytes are held back, and come late: what it is told then is of the past.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use folio_engine::disk::RealDisk;
use folio_raft::config::Timing;
use folio_raft::group::Group;
use folio_raft::host::{Host, Listener, Net, Socket, Tcp};
use folio_raft::proposal::{Proposal, ProposeError, Repeat};
use folio_raft::status::Role;
use openraft::base::BoxFuture;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::cluster::{Cluster, Echo, PATIENCE, message, no_retention};

/// A connection sent so much: it carries records. Everything else that is said in the test is shorter.
const RECORD_BYTES: usize = 20 << 10;

/// One connection of the node: what it sends can be kept from leaving, and what comes in is let through frame by frame.
#[derive(Default)]
struct Gate {
    /// Nothing is sent.
    sends_held: bool,
    /// Nothing comes in, but for as many frames.
    answers_held: bool,
    permits: usize,
    /// Frames that wait.
    waiting: usize,
    sent: usize,
    reader: Option<Waker>,
}

type Shared<T> = Arc<Mutex<T>>;

/// The network of a node whose connections can be held.
#[derive(Default, Clone)]
struct HeldNet {
    /// Answers and sends, on connections that are made later.
    held: Shared<(bool, bool)>,
    gates: Shared<Vec<Shared<Gate>>>,
}

impl HeldNet {
    fn wrap(&self, socket: Socket) -> Socket {
        let (answers_held, sends_held) = *self.held.lock();
        let gate = Arc::new(Mutex::new(Gate { answers_held, sends_held, ..Gate::default() }));
        self.gates.lock().push(gate.clone());
        let (waiting, ready) = (BytesMut::new(), Bytes::new());
        let reader = HeldReader { inner: socket.reader, gate: gate.clone(), waiting, ready };
        let writer = HeldWriter { inner: socket.writer, gate };
        Socket { reader: Box::new(reader), writer: Box::new(writer), peer: socket.peer }
    }

    /// From now on nothing comes in, on connections of now and of later.
    fn hold_answers(&self) {
        self.held.lock().0 = true;
        self.gates.lock().iter().for_each(|gate| gate.lock().answers_held = true);
    }

    /// Nor does anything leave.
    fn hold_sends(&self) {
        self.held.lock().1 = true;
        self.gates.lock().iter().for_each(|gate| gate.lock().sends_held = true);
    }

    /// The connections that have carried records.
    fn replication(&self) -> Vec<Shared<Gate>> {
        self.gates.lock().iter().filter(|gate| gate.lock().sent > RECORD_BYTES).cloned().collect()
    }
}

impl Gate {
    fn pass_one(&mut self) {
        self.permits += 1;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

struct HeldListener(Box<dyn Listener>, HeldNet);

impl Listener for HeldListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Socket>> {
        Box::pin(async { self.0.accept().await.map(|socket| self.1.wrap(socket)) })
    }
}

impl Net for HeldNet {
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener: Box<dyn Listener> =
                Box::new(HeldListener(Tcp.listen(address).await?, self.clone()));
            Ok(listener)
        })
    }

    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Socket>> {
        Box::pin(async { Tcp.dial(address).await.map(|socket| self.wrap(socket)) })
    }
}

struct HeldReader {
    inner: Box<dyn AsyncRead + Send + Unpin>,
    gate: Shared<Gate>,
    /// What came and does not pass yet.
    waiting: BytesMut,
    /// What passes.
    ready: Bytes,
}

/// The length of the first frame, once all of it is there.
fn whole_frame(bytes: &[u8]) -> Option<usize> {
    let length = 4 + u32::from_le_bytes(*bytes.first_chunk()?) as usize;
    (bytes.len() >= length).then_some(length)
}

impl HeldReader {
    fn take_ready(&mut self, context: &Context<'_>) {
        let mut gate = self.gate.lock();
        gate.waiting = 0;
        let mut rest = &self.waiting[..];
        while let Some(length) = whole_frame(rest) {
            gate.waiting += 1;
            rest = &rest[length..];
        }
        gate.reader = Some(context.waker().clone());
        let Some(length) = whole_frame(&self.waiting) else { return };
        if !gate.answers_held {
            self.ready = self.waiting.split_to(length).freeze();
        } else if gate.permits > 0 {
            gate.permits -= 1;
            gate.waiting -= 1;
            self.ready = self.waiting.split_to(length).freeze();
        }
    }
}

impl AsyncRead for HeldReader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.ready.is_empty() {
                this.take_ready(context);
            }
            if !this.ready.is_empty() {
                let bytes = this.ready.len().min(to.remaining());
                to.put_slice(&this.ready[..bytes]);
                this.ready.advance(bytes);
                return Poll::Ready(Ok(()));
            }
            let mut space = [0; 16 << 10];
            let mut read = ReadBuf::new(&mut space);
            match Pin::new(&mut this.inner).poll_read(context, &mut read) {
                // The connection's end waits with what came before it.
                Poll::Ready(Ok(())) if read.filled().is_empty() && !this.gate.lock().answers_held => {
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(())) if read.filled().is_empty() => return Poll::Pending,
                Poll::Ready(Ok(())) => this.waiting.extend_from_slice(read.filled()),
                other => return other,
            }
        }
    }
}

struct HeldWriter {
    inner: Box<dyn AsyncWrite + Send + Unpin>,
    gate: Shared<Gate>,
}

impl AsyncWrite for HeldWriter {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.gate.lock().sends_held {
            return Poll::Pending;
        }
        let written = Pin::new(&mut this.inner).poll_write(context, bytes);
        if let Poll::Ready(Ok(bytes)) = &written {
            this.gate.lock().sent += bytes;
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn propose(group: &Group, body: Vec<u8>) {
    let reply = Box::new(|_| {});
    let proposal = Proposal { messages: vec![message(0, body)], repeat: Repeat::Store, reply };
    assert!(group.propose(proposal).is_ok());
}

fn last_index(group: &Group) -> u64 {
    group.log().state().last.map_or(0, |last| last.index)
}

/// Three nodes of which the first leads and has a network that can be held.
async fn led_by_held() -> (Cluster, HeldNet) {
    let net = HeldNet::default();
    // A leader takes records for its lease after the last answer: longer than what is done meanwhile, and so short that the held
    // connections live until another node leads.
    let timing = Timing {
        election_min: Duration::from_millis(800),
        election_max: Duration::from_millis(1_100),
        heartbeat: Duration::from_millis(100),
    };
    let mut cluster = Cluster::start([1, 2, 3], no_retention(), timing).await;
    cluster.leader().await;
    cluster.stop(1).await;
    let host = Host { net: Arc::new(net.clone()), ..Host::new(Arc::new(RealDisk)) };
    let group = Group::start_on(host, cluster.config(1, false), Arc::new(Echo)).await.unwrap();
    cluster.groups.insert(1, group);
    cluster.lead(1).await;
    (cluster, net)
}

/// Found by `folio-jepsen run --nemesis partition-one-way`, by the checker `linearizable`: two answers to appends came to a
/// leader that had been replaced. openraft took the first one's as a commit, told the follower of it, and took the second one's
/// for the answer to that: a quorum that follows now. Reads of what had been applied there were answered for milliseconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn read_index_i1_late_answers_of_followers_proved_that_a_replaced_leader_leads() {
    let (mut cluster, net) = led_by_held().await;
    let old = cluster.groups[&1].clone();
    // Its connections for records are known by what they carried.
    propose(&old, vec![1; 2 * RECORD_BYTES]);
    cluster.assert_identical().await;
    until("both followers get records", || net.replication().len() == 2).await;
    // Nor does an answer to a commit come any more.
    tokio::time::sleep(Duration::from_millis(300)).await;

    // Two records reach the followers; their answers are held.
    let first = last_index(&old) + 1;
    let gates = net.replication();
    net.hold_answers();
    propose(&old, b"first".to_vec());
    let followers: BTreeMap<u64, Group> =
        cluster.groups.iter().filter(|(id, _)| **id != 1).map(|(id, group)| (*id, group.clone())).collect();
    until("the first record arrives", || followers.values().all(|group| last_index(group) >= first)).await;
    // It leaves before the first one is answered, for the third does not fit into the same record.
    propose(&old, vec![2; 2 * RECORD_BYTES]);
    propose(&old, vec![3; 2 * RECORD_BYTES]);
    until("the second record arrives", || followers.values().all(|group| last_index(group) > first)).await;
    until("both answers wait", || gates.iter().all(|gate| gate.lock().waiting >= 2)).await;

    // The followers elect another leader, which takes a message that the old one does not know.
    net.hold_sends();
    until("another node leads", || followers.values().any(|group| group.status().role == Role::Leader)).await;
    cluster.groups.remove(&1);
    cluster.send_one(7).await;

    let read = tokio::spawn({
        let old = old.clone();
        async move { old.confirm().await }
    });
    // The proof is under way; openraft's is given up after the leader's lease.
    tokio::time::sleep(Duration::from_millis(30)).await;
    let applied = old.status().applied_position;
    gates.iter().for_each(|gate| gate.lock().pass_one());
    until("the first answer commits its record", || old.status().applied_position > applied).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    gates.iter().for_each(|gate| gate.lock().pass_one());
    let proved = tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    assert_eq!(
        proved,
        Err(ProposeError::NotLeader { leader: None }),
        "another node leads, and has taken a message since"
    );
    old.shutdown().await;
}
