//! Requests to one peer over one connection: many in flight, answered in any order.
//!
//! The connection is made when it is first needed and again after it broke. A request that was under way
//! when it broke fails; whether the peer acted on it is not known here.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::wire::{Frame, FrameReader, FrameWriter, Hello, Kind, invalid};
use crate::codec;
use crate::host::Net;

/// Requests that may wait to be written to one peer.
const WAITING_MAX: usize = 1024;
/// How long a connection may take to be made, its hello included.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_millis(1000);

type Answers = Arc<Mutex<HashMap<u64, oneshot::Sender<io::Result<Frame>>>>>;

/// A connection that speaks.
struct Link {
    outgoing: mpsc::Sender<(Kind, u64, Vec<Bytes>)>,
    answers: Answers,
    next_id: u64,
}

/// Requests to one peer.
#[derive(Clone)]
pub(crate) struct Requests {
    net: Arc<dyn Net>,
    address: String,
    hello: Hello,
    link: Arc<tokio::sync::Mutex<Option<Link>>>,
}

/// Connects and introduces itself; a refusal is an error with the peer's reason.
pub(crate) async fn connect(
    net: &dyn Net,
    address: &str,
    hello: &Hello,
) -> io::Result<(FrameReader, FrameWriter)> {
    let dial = async {
        let socket = net.dial(address).await?;
        let (mut reader, mut writer) = (FrameReader::new(socket.reader), FrameWriter::new(socket.writer));
        writer.write(Kind::Hello, 0, vec![codec::encode(hello).into()]).await?;
        match reader.next().await? {
            Some(Frame { kind: Kind::Answer, .. }) => Ok((reader, writer)),
            Some(Frame { kind: Kind::Failure, body, .. }) => Err(io::Error::new(
                io::ErrorKind::ConnectionRefused,
                String::from_utf8_lossy(&body).into_owned(),
            )),
            Some(frame) => {
                Err(invalid(format!("a {:?} frame instead of an answer to the hello", frame.kind)))
            }
            None => Err(io::ErrorKind::ConnectionReset.into()),
        }
    };
    timeout(CONNECT_TIMEOUT, dial).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

impl Requests {
    pub(crate) fn new(net: Arc<dyn Net>, address: String, hello: Hello) -> Requests {
        Requests { net, address, hello, link: Arc::default() }
    }

    /// Sends one request and waits for its answer, at most `limit`.
    pub(crate) async fn request(&self, kind: Kind, parts: Vec<Bytes>, limit: Duration) -> io::Result<Bytes> {
        let exchange = async {
            let answer = self.send(kind, parts).await?;
            let frame = answer.await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionReset))??;
            match frame.kind {
                Kind::Answer => Ok(frame.body),
                Kind::Failure => Err(io::Error::other(String::from_utf8_lossy(&frame.body).into_owned())),
                other => Err(invalid(format!("a {other:?} frame instead of an answer"))),
            }
        };
        timeout(limit, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn send(&self, kind: Kind, parts: Vec<Bytes>) -> io::Result<oneshot::Receiver<io::Result<Frame>>> {
        let mut slot = self.link.lock().await;
        if slot.as_ref().is_none_or(|link| link.outgoing.is_closed()) {
            *slot = Some(Link::open(&*self.net, &self.address, &self.hello).await?);
        }
        let Some(link) = slot.as_mut() else { return Err(io::ErrorKind::NotConnected.into()) };
        link.next_id += 1;
        let (sender, answer) = oneshot::channel();
        link.answers.lock().insert(link.next_id, sender);
        let message = (kind, link.next_id, parts);
        let outgoing = link.outgoing.clone();
        drop(slot);
        outgoing.try_send(message).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(answer)
    }
}

impl Link {
    async fn open(net: &dyn Net, address: &str, hello: &Hello) -> io::Result<Link> {
        let (mut reader, mut writer) = connect(net, address, hello).await?;
        let (outgoing, mut waiting) = mpsc::channel::<(Kind, u64, Vec<Bytes>)>(WAITING_MAX);
        let answers = Answers::default();
        let inbox = answers.clone();
        tokio::spawn(async move {
            let write = async {
                while let Some((kind, id, parts)) = waiting.recv().await {
                    writer.write(kind, id, parts).await?;
                }
                io::Result::Ok(())
            };
            let read = async {
                while let Some(frame) = reader.next().await? {
                    if let Some(answer) = inbox.lock().remove(&frame.id) {
                        let _ = answer.send(Ok(frame));
                    }
                }
                io::Result::Ok(())
            };
            // Whichever ends first ends the link; dropping the receivers fails what is under way.
            tokio::select! { _ = write => {}, _ = read => {} }
            waiting.close();
            inbox.lock().clear();
        });
        Ok(Link { outgoing, answers, next_id: 0 })
    }
}
