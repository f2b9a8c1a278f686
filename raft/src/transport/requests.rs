//! Requests to one peer over one connection: many in flight, answered in any order.
//!
//! The connection is made when it is first needed and again after it broke. A request that was under way
//! when it broke fails; whether the peer acted on it is not known here.
//!
//! A network that was cut for minutes leaves connections that look whole and wait for TCP's next retransmission, which
//! is up to two minutes away. So a connection on which requests wait and nothing has come back for [`SILENCE_MAX`] gets no
//! further request: the next one makes a new connection, and those that wait keep the old one until their time is up.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::frames::{FrameReader, FrameWriter};
use super::handshake::{self, Introduced, Naming};
use super::introduction::Introduction;
use super::watchdog;
use super::wire::{Frame, Kind, invalid};
use crate::group::group_id::GroupId;
use crate::host::Net;

/// Requests that may wait to be written to one peer.
const WAITING_MAX: usize = 1024;
/// How long a connection may take to be made, its hello included.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_millis(1000);

/// How long requests may wait on a connection on which nothing comes back, before the next one takes another.
const SILENCE_MAX: Duration = Duration::from_secs(1);

type Outgoing = mpsc::Sender<(Kind, u64, Vec<Bytes>)>;

/// The requests that wait on one connection.
#[derive(Default)]
struct Waiting {
    answers: HashMap<u64, oneshot::Sender<Frame>>,
    /// When the first request was sent after the last frame came.
    silent_since: Option<Instant>,
}

/// A connection that speaks. It ends when nobody holds `outgoing` any more.
struct Link {
    outgoing: Outgoing,
    waiting: Arc<Mutex<Waiting>>,
    next_id: u64,
    /// The group that this node said it belongs to.
    group_id: Option<GroupId>,
}

/// A request under way: keeps its connection, and is forgotten there when its time is up.
struct UnderWay {
    id: u64,
    answer: oneshot::Receiver<Frame>,
    waiting: Arc<Mutex<Waiting>>,
    _outgoing: Outgoing,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.waiting.lock().answers.remove(&self.id);
    }
}

/// Requests to one peer.
#[derive(Clone)]
pub(crate) struct Requests {
    net: Arc<dyn Net>,
    address: String,
    introduction: Introduction,
    link: Arc<tokio::sync::Mutex<Option<Link>>>,
}

/// Connects and introduces itself; a refusal is an error with its reason, and in this node's log.
pub(crate) async fn connect(
    net: &dyn Net,
    address: &str,
    introduction: &Introduction,
) -> io::Result<(FrameReader, FrameWriter)> {
    let dial = async {
        for naming in [Naming::Named, Naming::Unnamed] {
            let socket = net.dial(address).await?;
            let (mut reader, mut writer) =
                (FrameReader::of_stranger(socket.reader), FrameWriter::new(socket.writer));
            let introduced = handshake::introduce(&mut reader, &mut writer, introduction, naming).await;
            if let Err(error) = &introduced
                && error.kind() == io::ErrorKind::ConnectionRefused
                && introduction.refusals.admit().is_some()
            {
                tracing::warn!(node = introduction.to, address, reason = %error, "peer refused this node, or was refused");
            }
            if introduced? == Introduced::Done {
                reader.trust(None);
                return Ok((reader, writer));
            }
        }
        Err(io::ErrorKind::ConnectionReset.into())
    };
    timeout(CONNECT_TIMEOUT, dial).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

impl Requests {
    pub(crate) fn new(net: Arc<dyn Net>, address: String, introduction: Introduction) -> Requests {
        Requests { net, address, introduction, link: Arc::default() }
    }

    /// Sends one request and waits for its answer, at most `limit`. An error of the kind `ResourceBusy` or
    /// `ConnectionRefused`: it was certainly not sent.
    pub(crate) async fn request(&self, kind: Kind, parts: Vec<Bytes>, limit: Duration) -> io::Result<Bytes> {
        let exchange = async {
            let mut sent = self.send(kind, parts).await?;
            let frame =
                (&mut sent.answer).await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionReset))?;
            match frame.kind {
                Kind::Answer => Ok(frame.body),
                Kind::Failure => Err(io::Error::other(String::from_utf8_lossy(&frame.body).into_owned())),
                other => Err(invalid(format!("a {other:?} frame instead of an answer"))),
            }
        };
        timeout(limit, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn send(&self, kind: Kind, parts: Vec<Bytes>) -> io::Result<UnderWay> {
        let mut slot = self.link.lock().await;
        let group_id = self.introduction.group_id.get();
        let is_of_use =
            |link: &Link| !link.outgoing.is_closed() && !link.is_silent() && link.group_id == group_id;
        if !slot.as_ref().is_some_and(is_of_use) {
            *slot = None;
            *slot = Some(Link::open(&*self.net, &self.address, &self.introduction).await?);
        }
        let Some(link) = slot.as_mut() else { return Err(io::ErrorKind::NotConnected.into()) };
        let sent = link.expect_answer();
        let outgoing = link.outgoing.clone();
        drop(slot);
        outgoing.try_send((kind, sent.id, parts)).map_err(not_sent)?;
        Ok(sent)
    }
}

/// Why a request did not even begin to leave.
fn not_sent<T>(error: TrySendError<T>) -> io::Error {
    match error {
        TrySendError::Full(_) => {
            io::Error::new(io::ErrorKind::ResourceBusy, "too many requests wait for the peer")
        }
        TrySendError::Closed(_) => io::ErrorKind::ConnectionReset.into(),
    }
}

impl Link {
    async fn open(net: &dyn Net, address: &str, introduction: &Introduction) -> io::Result<Link> {
        // Before it is sent: an id that is learned meanwhile makes another connection.
        let group_id = introduction.group_id.get();
        let (mut reader, mut writer) = connect(net, address, introduction).await?;
        let (outgoing, mut requests) = mpsc::channel::<(Kind, u64, Vec<Bytes>)>(WAITING_MAX);
        let waiting = Arc::<Mutex<Waiting>>::default();
        let inbox = waiting.clone();
        let watched = watchdog::watch(reader.progress(), writer.progress());
        tokio::spawn(async move {
            let write = async {
                while let Some((kind, id, parts)) = requests.recv().await {
                    writer.write(kind, id, parts).await?;
                }
                io::Result::Ok(())
            };
            let read = async {
                while let Some(frame) = reader.next().await? {
                    let mut inbox = inbox.lock();
                    inbox.silent_since = None;
                    if let Some(answer) = inbox.answers.remove(&frame.id) {
                        let _ = answer.send(frame);
                    }
                }
                io::Result::Ok(())
            };
            // Whichever ends first ends the link; dropping the senders fails what is under way.
            tokio::select! { _ = write => {}, _ = read => {}, _ = watched => {} }
            requests.close();
            inbox.lock().answers.clear();
        });
        Ok(Link { outgoing, waiting, next_id: 0, group_id })
    }

    fn expect_answer(&mut self) -> UnderWay {
        self.next_id += 1;
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        waiting.answers.insert(self.next_id, sender);
        waiting.silent_since.get_or_insert_with(Instant::now);
        UnderWay { id: self.next_id, answer, waiting: self.waiting.clone(), _outgoing: self.outgoing.clone() }
    }

    fn is_silent(&self) -> bool {
        self.waiting.lock().silent_since.is_some_and(|since| since.elapsed() >= SILENCE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicU64, Ordering};

    use openraft::base::BoxFuture;

    use super::super::introduction::{Identity, NodeIdentity};
    use super::super::wire::Purpose;
    use super::*;
    use crate::group::group_id::GroupIdFile;
    use crate::host::{Listener, Socket};
    use folio_engine::disk::sim::SimDisk;

    /// A peer that takes as long for a request as its first bytes say, on its first connection, and answers at once on
    /// later ones.
    #[derive(Default)]
    struct Slow {
        dials: AtomicU64,
    }

    impl Net for Slow {
        fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
            Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
        }

        fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Socket>> {
            let first = self.dials.fetch_add(1, Ordering::Relaxed) == 0;
            let (near, far) = tokio::io::duplex(1 << 16);
            tokio::spawn(answer_slowly(first, far));
            let (reader, writer) = tokio::io::split(near);
            let socket =
                Socket { reader: Box::new(reader), writer: Box::new(writer), peer: address.to_owned() };
            Box::pin(async { Ok(socket) })
        }
    }

    async fn answer_slowly(slow: bool, socket: tokio::io::DuplexStream) {
        let (reader, writer) = tokio::io::split(socket);
        let mut reader = FrameReader::new(Box::new(reader));
        let writer = Arc::new(tokio::sync::Mutex::new(FrameWriter::new(Box::new(writer))));
        let identity = NodeIdentity { cluster: "c".into(), secret: None, groups: vec!["g".into()] };
        handshake::meet(&mut reader, &mut *writer.lock().await, &identity).await.expect("a caller");
        writer.lock().await.write(Kind::Answer, 0, Vec::new()).await.expect("a caller");
        while let Ok(Some(frame)) = reader.next().await {
            let pause = frame.body.first_chunk().map_or(0, |ms| u64::from_le_bytes(*ms));
            let writer = writer.clone();
            tokio::spawn(async move {
                if slow {
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
                drop(writer.lock().await.write(Kind::Answer, frame.id, Vec::new()).await);
            });
        }
    }

    fn identity(node_id: u64) -> Identity {
        let (cluster, group) = ("c".to_owned(), "g".to_owned());
        Identity {
            node_id,
            cluster,
            group,
            segment_bytes: 1,
            address: String::new(),
            secret: None,
            level: Default::default(),
        }
    }

    fn requests() -> (Arc<Slow>, Requests) {
        let net = Arc::new(Slow::default());
        let ids = GroupIdFile::open(Arc::new(SimDisk::new()), "/".as_ref(), ("c", "g"), true);
        let introduction = Introduction::new(identity(1), Arc::new(ids.expect("an empty disk")));
        let introduction = introduction.to(2, Purpose::Requests);
        (net.clone(), Requests::new(net, "there".to_owned(), introduction))
    }

    async fn ask(requests: &Requests, takes_ms: u64, limit_ms: u64) -> io::Result<Bytes> {
        let body = Bytes::copy_from_slice(&takes_ms.to_le_bytes());
        requests.request(Kind::Room, vec![body], Duration::from_millis(limit_ms)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_swallows_requests_is_replaced_after_a_second() {
        let (net, requests) = requests();
        let started = Instant::now();
        while ask(&requests, 600_000, 300).await.is_err() {
            assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        }
        assert!(started.elapsed() >= SILENCE_MAX);
        assert_eq!(net.dials.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_vote_now_and_then_does_not_wait_for_a_dead_connection_twice() {
        let (net, requests) = requests();
        ask(&requests, 600_000, 300).await.expect_err("swallowed");
        tokio::time::sleep(Duration::from_secs(2)).await;
        ask(&requests, 600_000, 300).await.expect("an answer");
        assert_eq!(net.dials.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_still_comes_over_the_connection_that_was_given_up() {
        let (net, requests) = requests();
        let slow = tokio::spawn({
            let requests = requests.clone();
            async move { ask(&requests, 4_000, 5_000).await }
        });
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        ask(&requests, 600_000, 300).await.expect("an answer over another connection");
        slow.await.expect("no panic").expect("the answer");
        assert_eq!(net.dials.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_was_idle_or_answers_late_now_and_then_is_kept() {
        let (net, requests) = requests();
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(30)).await;
            ask(&requests, 0, 300).await.expect("an answer");
            ask(&requests, 600, 300).await.expect_err("too late");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert_eq!(net.dials.load(Ordering::Relaxed), 1);
    }
}
