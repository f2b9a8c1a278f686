//! The simulated network: connections as TCP gives them, on links that delay, hold back and break.
//!
//! - Bytes of one connection arrive in order, or not at all; connections overtake each other.
//! - A blocked link holds bytes and dials back until it opens, as retransmissions would.
//! - A killed process resets its connections; a machine without power says nothing, and its peers hear of it when they
//!   write to it after it is back.
//!
//! Each link is one direction between two nodes. All of it is driven by [`Network::advance`], once a millisecond.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use folio_engine::disk::sim::SeededChoice;
use folio_raft::host::{Listener, Net, Socket};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock::Clock;
use crate::connections::Connections;
use crate::trace::Trace;

/// Bytes under way in one direction of a connection before a writer waits.
const WINDOW_BYTES: usize = 256 << 10;
/// Pause before a dial is tried again on a blocked link.
const DIAL_AGAIN: Duration = Duration::from_millis(200);

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One direction between two nodes.
type Link = (u64, u64);

enum Piece {
    Bytes(Vec<u8>),
    End,
}

/// One direction of a connection.
struct Pipe {
    link: Link,
    pieces: VecDeque<(u64, Piece)>,
    buffered: usize,
    last_arrival: u64,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// The end that reads was dropped.
    unread: bool,
    reset: bool,
}

impl Pipe {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

#[derive(Default)]
struct Port {
    arrived: VecDeque<Socket>,
    acceptor: Option<Waker>,
}

/// How long bytes take on a link, milliseconds.
#[derive(Debug, Clone, Copy, Hash)]
pub(crate) struct Delay {
    pub(crate) least: u64,
    pub(crate) most: u64,
}

struct State {
    clock: Clock,
    trace: Trace,
    random: SeededChoice,
    blocked: BTreeSet<Link>,
    delays: BTreeMap<Link, Delay>,
    ports: BTreeMap<u64, Port>,
    /// Machines that answer nothing, not even that nobody listens.
    dark: BTreeSet<u64>,
    /// Even and odd numbers are the two directions of one connection.
    pipes: BTreeMap<u64, Pipe>,
    next: u64,
    clients: Connections,
}

/// The network; a clone is the same one.
#[derive(Clone)]
pub(crate) struct Network(Arc<Mutex<State>>);

impl Network {
    pub(crate) fn new(seed: u64, clock: &Clock, trace: &Trace) -> Network {
        let (clock, trace, random) = (clock.clone(), trace.clone(), SeededChoice::new(seed));
        let (blocked, delays, ports, dark, pipes, clients) = Default::default();
        let state = State { clock, trace, random, blocked, delays, ports, dark, pipes, clients, next: 0 };
        Network(Arc::new(Mutex::new(state)))
    }

    /// The connections of the clients.
    pub(crate) fn clients(&self) -> Connections {
        self.0.lock().clients.clone()
    }

    /// The network as one node has it.
    pub(crate) fn of(&self, node: u64) -> Arc<dyn Net> {
        Arc::new(NodeNet { network: self.clone(), node })
    }

    /// Wakes whoever something has arrived for, and forgets connections that both sides have left.
    pub(crate) fn advance(&self) {
        let mut state = self.0.lock();
        let now = state.clock.now();
        let State { pipes, blocked, .. } = &mut *state;
        for pipe in pipes.values_mut() {
            let arrived = pipe.pieces.front().is_some_and(|(at, _)| *at <= now);
            if arrived && !blocked.contains(&pipe.link) {
                pipe.reader.take().into_iter().for_each(Waker::wake);
            }
        }
        pipes.retain(|_, pipe| {
            !(pipe.unread && pipe.pieces.back().is_some_and(|(_, p)| matches!(p, Piece::End)))
        });
    }

    pub(crate) fn block(&self, links: impl IntoIterator<Item = Link>) {
        self.0.lock().blocked.extend(links);
    }

    pub(crate) fn unblock_all(&self) {
        self.0.lock().blocked.clear();
    }

    pub(crate) fn set_delay(&self, link: Link, delay: Delay) {
        self.0.lock().delays.insert(link, delay);
    }

    pub(crate) fn usual_delays(&self) {
        self.0.lock().delays.clear();
    }

    /// The node's process was killed: its connections are reset.
    pub(crate) fn killed(&self, node: u64) {
        // Dropped after the lock: it holds connections.
        let _port = self.0.lock().ports.remove(&node);
        let mut state = self.0.lock();
        for pipe in state.pipes.values_mut().filter(|pipe| pipe.link.0 == node || pipe.link.1 == node) {
            pipe.reset = true;
            pipe.wake();
        }
    }

    /// The node's machine lost power: what it had under way is lost, and it answers nothing.
    pub(crate) fn darkened(&self, node: u64) {
        let _port = self.0.lock().ports.remove(&node);
        let mut state = self.0.lock();
        state.dark.insert(node);
        for pipe in state.pipes.values_mut().filter(|pipe| pipe.link.0 == node || pipe.link.1 == node) {
            pipe.pieces.clear();
            pipe.unread |= pipe.link.1 == node;
        }
    }

    /// The node's machine runs again.
    pub(crate) fn lit(&self, node: u64) {
        self.0.lock().dark.remove(&node);
    }
}

impl State {
    fn delay(&mut self, link: Link) -> u64 {
        let Delay { least, most } = self.delays.get(&link).copied().unwrap_or(Delay { least: 0, most: 3 });
        least + self.random.below(most - least + 1)
    }

    fn is_open(&self, link: Link) -> bool {
        !self.blocked.contains(&link) && !self.dark.contains(&link.0) && !self.dark.contains(&link.1)
    }

    fn pipe(&mut self, link: Link) -> u64 {
        let number = self.next;
        self.next += 1;
        let (pieces, reader, writer) = Default::default();
        let pipe =
            Pipe { link, pieces, buffered: 0, last_arrival: 0, reader, writer, unread: false, reset: false };
        self.pipes.insert(number, pipe);
        number
    }

    /// Puts something on its way through a pipe.
    fn send(&mut self, number: u64, piece: Piece) {
        let Some(link) = self.pipes.get(&number).map(|pipe| pipe.link) else { return };
        if self.dark.contains(&link.0) {
            return;
        }
        let arrival = self.clock.now() + self.delay(link);
        let Some(pipe) = self.pipes.get_mut(&number) else { return };
        pipe.last_arrival = pipe.last_arrival.max(arrival);
        if let Piece::Bytes(bytes) = &piece {
            pipe.buffered += bytes.len();
        }
        pipe.pieces.push_back((pipe.last_arrival, piece));
    }

    /// Both directions of the connection are broken for whoever uses them next.
    fn reset(&mut self, number: u64) {
        for number in [number, number ^ 1] {
            if let Some(pipe) = self.pipes.get_mut(&number) {
                pipe.reset = true;
                pipe.wake();
            }
        }
    }
}

struct NodeNet {
    network: Network,
    node: u64,
}

/// Node 3 listens on port 3.
fn node_at(address: &str) -> io::Result<u64> {
    let address: SocketAddr = address.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok(address.port().into())
}

impl Net for NodeNet {
    fn listen(&self, address: SocketAddr) -> Boxed<'_, io::Result<Box<dyn Listener>>> {
        let node = u64::from(address.port());
        self.network.0.lock().ports.insert(node, Port::default());
        let listener: Box<dyn Listener> = Box::new(Accepting { network: self.network.clone(), node });
        Box::pin(std::future::ready(Ok(listener)))
    }

    fn dial<'a>(&'a self, address: &'a str) -> Boxed<'a, io::Result<Socket>> {
        Box::pin(async move {
            let to = node_at(address)?;
            let (there, back) = ((self.node, to), (to, self.node));
            let delay = |link| Duration::from_millis(self.network.0.lock().delay(link));
            loop {
                tokio::time::sleep(delay(there)).await;
                let open = {
                    let state = self.network.0.lock();
                    state.is_open(there) && state.is_open(back)
                };
                if open {
                    break;
                }
                tokio::time::sleep(DIAL_AGAIN).await;
            }
            let socket = self.network.connect(there)?;
            tokio::time::sleep(delay(back)).await;
            Ok(socket)
        })
    }
}

impl Network {
    fn connect(&self, link: Link) -> io::Result<Socket> {
        let mut state = self.0.lock();
        if !state.ports.contains_key(&link.1) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        if !state.next.is_multiple_of(2) {
            state.next += 1;
        }
        let (out, back) = (state.pipe(link), state.pipe((link.1, link.0)));
        let socket = |read: u64, write: u64, peer: u64| Socket {
            reader: Box::new(Reader { network: self.clone(), pipe: read }),
            writer: Box::new(Writer { network: self.clone(), pipe: write }),
            peer: format!("node {peer}"),
        };
        let accepted = socket(out, back, link.0);
        if let Some(port) = state.ports.get_mut(&link.1) {
            port.arrived.push_back(accepted);
            port.acceptor.take().into_iter().for_each(Waker::wake);
        }
        Ok(socket(back, out, link.1))
    }
}

struct Accepting {
    network: Network,
    node: u64,
}

impl Drop for Accepting {
    /// From now on dials are refused.
    fn drop(&mut self) {
        // Dropped after the lock: it holds connections.
        let _port = self.network.0.lock().ports.remove(&self.node);
    }
}

impl Listener for Accepting {
    fn accept(&mut self) -> Boxed<'_, io::Result<Socket>> {
        Box::pin(std::future::poll_fn(|context| {
            let mut state = self.network.0.lock();
            let Some(port) = state.ports.get_mut(&self.node) else { return Poll::Pending };
            match port.arrived.pop_front() {
                Some(socket) => Poll::Ready(Ok(socket)),
                None => {
                    port.acceptor = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }
}

struct Reader {
    network: Network,
    pipe: u64,
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.network.0.lock();
        let State { pipes, blocked, clock, trace, .. } = &mut *state;
        let Some(pipe) = pipes.get_mut(&self.pipe) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        if pipe.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let arrived = pipe.pieces.front_mut().filter(|(at, _)| *at <= clock.now());
        let Some((_, piece)) = arrived.filter(|_| !blocked.contains(&pipe.link)) else {
            pipe.reader = Some(context.waker().clone());
            return Poll::Pending;
        };
        if let Piece::Bytes(bytes) = piece {
            let count = bytes.len().min(buffer.remaining());
            buffer.put_slice(&bytes[..count]);
            bytes.drain(..count);
            let empty = bytes.is_empty();
            pipe.buffered -= count;
            trace.note((self.pipe, count));
            if empty {
                pipe.pieces.pop_front();
            }
            pipe.writer.take().into_iter().for_each(Waker::wake);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.network.0.lock();
        if let Some(pipe) = state.pipes.get_mut(&self.pipe) {
            pipe.unread = true;
        }
    }
}

struct Writer {
    network: Network,
    pipe: u64,
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.network.0.lock();
        let Some(pipe) = state.pipes.get(&self.pipe) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let (link, unread) = (pipe.link, pipe.unread);
        if unread && state.is_open(link) && state.is_open((link.1, link.0)) {
            state.reset(self.pipe);
        }
        let Some(pipe) = state.pipes.get_mut(&self.pipe) else { return Poll::Pending };
        if pipe.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if pipe.buffered >= WINDOW_BYTES {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        state.send(self.pipe, Piece::Bytes(bytes.to_vec()));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.network.0.lock().send(self.pipe, Piece::End);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.network.0.lock().send(self.pipe, Piece::End);
    }
}
