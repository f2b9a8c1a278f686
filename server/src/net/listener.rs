//! Listening sockets and the connections that came through them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Channel, CloseReason, Service, connection};
use crate::admin::{self, Network};

/// RocketMQ's idle time of a connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// A frame of 16 MiB at half a megabyte a second.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections of one node, all ports together.
const CONNECTIONS_MAX: usize = 10_000;
/// Bytes waiting for one client: four of the largest frames.
const OUTGOING_BYTES_MAX: usize = 64 << 20;
/// Pause after a failed accept: out of descriptors, most likely.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How often a stopping listener looks whether its connections are gone.
const DRAIN_POLL: Duration = Duration::from_millis(10);
/// A peer that sent nothing for this long has heard the refusals.
const QUIET: Duration = Duration::from_millis(50);
/// How long a peer that goes on sending is answered with refusals before its connection is closed all the same.
const REFUSE_MAX: Duration = Duration::from_millis(500);

/// Limits of connections.
#[derive(Debug, Clone)]
pub struct NetConfig {
    /// A connection nothing was read from for this long is closed.
    pub idle_timeout: Duration,
    /// A frame must be complete this long after its first byte.
    pub frame_timeout: Duration,
    /// Open connections, all listeners of the node together.
    pub connections_max: usize,
    /// Bytes that may wait for one client.
    pub outgoing_bytes_max: usize,
    /// Where operators are besides this machine's own address, whatever port they connect to.
    pub operators: Vec<Network>,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            idle_timeout: IDLE_TIMEOUT,
            frame_timeout: FRAME_TIMEOUT,
            connections_max: CONNECTIONS_MAX,
            outgoing_bytes_max: OUTGOING_BYTES_MAX,
            operators: Network::LOOPBACK.to_vec(),
        }
    }
}

/// All listening sockets of a node and their open connections.
#[derive(Clone)]
pub struct Listener(Arc<Inner>);

struct Inner {
    config: NetConfig,
    service: Arc<dyn Service>,
    open: Mutex<HashMap<u64, Channel>>,
    stop: watch::Sender<bool>,
}

impl Listener {
    /// No socket yet.
    pub fn new(config: NetConfig, service: Arc<dyn Service>) -> Self {
        let (stop, _) = watch::channel(false);
        Self(Arc::new(Inner { config, service, open: Mutex::default(), stop }))
    }

    /// Accepts connections of a bound socket from now on.
    pub fn serve(&self, socket: TcpListener) {
        let inner = self.0.clone();
        tokio::spawn(async move { inner.accept(socket, false).await });
    }

    /// The same of a socket that operators alone connect to.
    pub fn serve_operators(&self, socket: TcpListener) {
        let inner = self.0.clone();
        tokio::spawn(async move { inner.accept(socket, true).await });
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.0.open.lock().len()
    }

    /// Stops accepting; what is already connected goes on.
    pub fn stop_accepting(&self) {
        self.0.stop.send_replace(true);
    }

    /// Accepts no connection and takes no request any more: each is refused. What was taken is still answered.
    pub fn refuse(&self) {
        self.stop_accepting();
        self.0.channels().iter().for_each(Channel::refuse);
    }

    /// Closes every connection once all its requests are answered and the answers have left (net.I4); waits for that
    /// at most `patience`.
    pub async fn drain(&self, patience: Duration) {
        let started = Instant::now();
        let mut noise: HashMap<u64, Instant> = HashMap::new();
        self.refuse();
        while self.open() > 0 && started.elapsed() < patience {
            tokio::time::sleep(DRAIN_POLL).await;
            for channel in self.0.channels() {
                // It may have been accepted in the last moment.
                channel.refuse();
                if !channel.is_quiet() {
                    noise.insert(channel.id(), Instant::now());
                }
                let silence = noise.get(&channel.id()).unwrap_or(&started).elapsed();
                if channel.has_answered() && (silence >= QUIET || started.elapsed() >= REFUSE_MAX) {
                    channel.drain();
                }
            }
        }
    }

    /// Closes what is still open, after at most `patience` for the last answers to leave.
    pub async fn close(&self, patience: Duration) {
        self.drain(patience).await;
        let channels = self.0.channels();
        let unanswered = channels.iter().filter(|channel| !channel.has_answered()).count();
        if unanswered > 0 {
            tracing::warn!(connections = unanswered, "closed with requests unanswered");
        }
        for channel in channels {
            channel.close(CloseReason::Stopping);
        }
    }
}

impl Inner {
    fn channels(&self) -> Vec<Channel> {
        self.open.lock().values().cloned().collect()
    }

    async fn accept(self: Arc<Self>, socket: TcpListener, of_operators: bool) {
        let mut stop = self.stop.subscribe();
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok((stream, remote)) => self.take(stream, remote, of_operators),
                Err(error) => {
                    tracing::error!("cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn take(self: &Arc<Self>, stream: TcpStream, remote: SocketAddr, of_operators: bool) {
        let local = stream.local_addr().ok();
        let is_operator = of_operators || admin::is_operator(&self.config.operators, remote, local);
        let channel = Channel::new(remote, is_operator, self.config.outgoing_bytes_max);
        {
            let mut open = self.open.lock();
            if open.len() >= self.config.connections_max {
                drop(open);
                let max = self.config.connections_max;
                tracing::warn!(%remote, "connection refused: {max} are open, the limit is limits.connections");
                return;
            }
            open.insert(channel.id(), channel.clone());
        }
        // Replies are small and waited for: Nagle would hold them back.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%remote, "TCP_NODELAY cannot be set: {error}");
        }
        let inner = self.clone();
        tokio::spawn(async move {
            let _registered = Registered { inner: &inner, id: channel.id() };
            connection::serve(stream, channel, &inner.config, &*inner.service).await;
        });
    }
}

/// Takes the connection off the table, also when its task panicked.
struct Registered<'a> {
    inner: &'a Inner,
    id: u64,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.inner.open.lock().remove(&self.id);
    }
}
