//! One remoting connection with many requests in flight.
//!
//! It keeps apart what a checker must keep apart: a request that was never handed to the socket
//! ([`CallError::NotSent`]) and one whose answer never came ([`CallError::Unknown`]). The second
//! may still have taken effect. It never retries and never reconnects; that is the client's part.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use folio_protocol::frame::Frame;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Requests waiting for the socket; a caller waits when there are more.
const OUTGOING_MAX: usize = 1024;
/// How long a TCP connect may take: on one machine it is there at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// The request never left: it cannot have taken effect.
    NotSent(String),
    /// The request may have left: it may have taken effect, or may still do.
    Unknown(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(why) => write!(f, "not sent: {why}"),
            Self::Unknown(why) => write!(f, "outcome unknown: {why}"),
        }
    }
}

impl std::error::Error for CallError {}

/// What a server asks its client.
#[derive(Debug)]
pub struct Question {
    /// The server's address.
    pub from: String,
    /// When it was read off the socket.
    pub at: Instant,
    /// The request.
    pub frame: Frame,
}

/// Who is told what servers ask; nobody, mostly.
pub type Asked = Option<mpsc::UnboundedSender<Question>>;

/// Who waits for which answer; `None` once the connection is closed.
type Waiting = Arc<Mutex<Option<HashMap<i32, oneshot::Sender<Frame>>>>>;

/// A live or dead connection to one address.
pub struct Connection {
    waiting: Waiting,
    outgoing: mpsc::Sender<Frame>,
    opaque: AtomicI32,
    reader: tokio::task::JoinHandle<()>,
}

impl Connection {
    /// Connects; the error is always [`CallError::NotSent`].
    ///
    /// # Errors
    /// When nothing listens there or nobody accepts in time.
    pub async fn open(address: &str, asked: Asked) -> Result<Self, CallError> {
        let failed = |why: String| CallError::NotSent(format!("connect {address}: {why}"));
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
            .await
            .map_err(|_| failed("timeout".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
        let (from, to) = stream.into_split();
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let (outgoing, queue) = mpsc::channel(OUTGOING_MAX);
        tokio::spawn(write_frames(to, queue, Arc::clone(&waiting)));
        let asked = asked.map(|asked| (address.to_owned(), asked));
        let reader = tokio::spawn(read_frames(from, Arc::clone(&waiting), asked));
        Ok(Self { waiting, outgoing, opaque: AtomicI32::new(1), reader })
    }

    /// Whether a call still makes sense.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.waiting.lock().is_some()
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// See [`CallError`]; an answer with an error code is an answer, not an error.
    pub async fn call(&self, mut request: Frame, limit: Duration) -> Result<Frame, CallError> {
        let opaque = self.opaque.fetch_add(1, Ordering::Relaxed);
        request.opaque = opaque;
        let (answer, answered) = oneshot::channel();
        match self.waiting.lock().as_mut() {
            Some(waiting) => waiting.insert(opaque, answer),
            None => return Err(CallError::NotSent("connection is closed".to_owned())),
        };
        if self.outgoing.send(request).await.is_err() {
            self.forget(opaque);
            return Err(CallError::NotSent("connection is closed".to_owned()));
        }
        match timeout(limit, answered).await {
            Ok(Ok(frame)) => Ok(frame),
            Ok(Err(_)) => Err(CallError::Unknown("connection closed before the answer".to_owned())),
            Err(_) => {
                self.forget(opaque);
                Err(CallError::Unknown(format!("no answer in {} ms", limit.as_millis())))
            }
        }
    }

    /// Sends a request that nobody answers.
    ///
    /// # Errors
    /// [`CallError::NotSent`] when the connection is closed.
    pub async fn post(&self, mut request: Frame) -> Result<(), CallError> {
        request.opaque = self.opaque.fetch_add(1, Ordering::Relaxed);
        let closed = || CallError::NotSent("connection is closed".to_owned());
        if !self.is_open() {
            return Err(closed());
        }
        self.outgoing.send(request).await.map_err(|_| closed())
    }

    /// Gives up all that is not answered; the socket closes once nobody holds the connection.
    pub fn close(&self) {
        self.waiting.lock().take();
        self.reader.abort();
    }

    fn forget(&self, opaque: i32) {
        if let Some(waiting) = self.waiting.lock().as_mut() {
            waiting.remove(&opaque);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The writer ends when `outgoing` is gone; the reader would wait for the peer for ever.
        self.reader.abort();
    }
}

/// Writes whatever waits with one write, so that pipelining is visible on the wire.
async fn write_frames(mut to: OwnedWriteHalf, mut queue: mpsc::Receiver<Frame>, waiting: Waiting) {
    let mut frames = Vec::with_capacity(OUTGOING_MAX);
    let mut bytes = BytesMut::new();
    while queue.recv_many(&mut frames, OUTGOING_MAX).await > 0 {
        bytes.clear();
        for frame in frames.drain(..) {
            if frame.encode(&mut bytes).is_err() {
                // Too large for a frame: its caller times out. The workload sends no such thing.
                tracing::error!(code = frame.code, "request does not fit a frame");
            }
        }
        if to.write_all(&bytes).await.is_err() {
            break;
        }
    }
    waiting.lock().take();
}

async fn read_frames(
    mut from: OwnedReadHalf,
    waiting: Waiting,
    asked: Option<(String, mpsc::UnboundedSender<Question>)>,
) {
    let mut bytes = BytesMut::with_capacity(64 << 10);
    loop {
        loop {
            match Frame::decode(&mut bytes) {
                Ok(Some(frame)) if frame.is_response() => deliver(&waiting, frame),
                Ok(Some(frame)) => {
                    if let Some((from, asked)) = &asked {
                        // Whoever wanted to know has ended.
                        let _ = asked.send(Question { from: from.clone(), at: Instant::now(), frame });
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "server sent an undecodable frame");
                    waiting.lock().take();
                    return;
                }
            }
        }
        if !matches!(from.read_buf(&mut bytes).await, Ok(count) if count > 0) {
            // Dropping the senders tells every caller.
            waiting.lock().take();
            return;
        }
    }
}

fn deliver(waiting: &Waiting, frame: Frame) {
    let caller = waiting.lock().as_mut().and_then(|waiting| waiting.remove(&frame.opaque));
    if let Some(caller) = caller {
        // A caller that gave up meanwhile has dropped its end.
        let _ = caller.send(frame);
    }
}
