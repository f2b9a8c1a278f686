//! Listening sockets and the connections that came through them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use folio_raft::log_rate_limiter::LogRateLimiter;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::connections::{Admission, Connections};
use super::guest::Guest;
use super::{Channel, CloseReason, NetConfig, Resources, Service, connection};
use crate::admin;

/// Pause after a failed accept: out of descriptors, most likely.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How often a stopping listener looks whether its connections are gone.
const DRAIN_POLL: Duration = Duration::from_millis(10);
/// A peer that sent nothing for this long has heard the refusals.
const QUIET: Duration = Duration::from_millis(50);
/// How long a peer that goes on sending is answered with refusals before its connection is closed all the same.
const REFUSE_MAX: Duration = Duration::from_millis(500);

/// All listening sockets of a node and their open connections; clones are the same sockets.
#[derive(Clone)]
pub struct Listener {
    inner: Arc<Inner>,
    /// Who the connections of the sockets talk to that this handle is given.
    service: Arc<dyn Service>,
}

struct Inner {
    config: NetConfig,
    guest_config: NetConfig,
    resources: Arc<Resources>,
    stop: watch::Sender<bool>,
}

impl Listener {
    /// No socket yet.
    pub(crate) fn new(config: NetConfig, resources: Arc<Resources>, service: Arc<dyn Service>) -> Self {
        let (stop, _) = watch::channel(false);
        let guest_config = Guest::limits(&config);
        Self { inner: Arc::new(Inner { config, guest_config, resources, stop }), service }
    }

    /// The same sockets and connections; those that are added through it talk to another service.
    pub(crate) fn with(&self, service: Arc<dyn Service>) -> Self {
        Self { inner: self.inner.clone(), service }
    }

    /// Accepts connections of a bound socket from now on.
    pub fn serve(&self, socket: TcpListener) {
        self.accept(socket, false);
    }

    /// The same of a socket that operators alone connect to.
    pub fn serve_operators(&self, socket: TcpListener) {
        self.accept(socket, true);
    }

    fn accept(&self, socket: TcpListener, of_operators: bool) {
        let (inner, service) = (self.inner.clone(), self.service.clone());
        tokio::spawn(async move { inner.accept(socket, service, of_operators).await });
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.inner.connections().count()
    }

    /// Stops accepting; what is already connected goes on.
    pub fn stop_accepting(&self) {
        self.inner.stop.send_replace(true);
    }

    /// Accepts no connection and takes no request any more: each is refused. What was taken is still answered.
    pub fn refuse(&self) {
        self.stop_accepting();
        self.inner.channels().iter().for_each(Channel::refuse);
    }

    /// Closes every connection once all its requests are answered and the answers have left (net.I4); waits for that
    /// at most `patience`.
    pub async fn drain(&self, patience: Duration) {
        let started = Instant::now();
        let mut noise: HashMap<u64, Instant> = HashMap::new();
        self.refuse();
        while self.open() > 0 && started.elapsed() < patience {
            tokio::time::sleep(DRAIN_POLL).await;
            for channel in self.inner.channels() {
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
        let channels = self.inner.channels();
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
    fn connections(&self) -> &Connections {
        self.resources.connections()
    }

    fn channels(&self) -> Vec<Channel> {
        self.connections().all()
    }

    async fn accept(self: Arc<Self>, socket: TcpListener, service: Arc<dyn Service>, of_operators: bool) {
        let failures = LogRateLimiter::new();
        let mut stop = self.stop.subscribe();
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok((stream, remote)) => self.take(stream, remote, &service, of_operators),
                Err(error) => {
                    if let Some(left_out) = failures.admit() {
                        tracing::error!(left_out, "cannot accept a connection: {error}");
                    }
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn take(
        self: &Arc<Self>,
        stream: TcpStream,
        remote: SocketAddr,
        service: &Arc<dyn Service>,
        of_operators: bool,
    ) {
        let local = stream.local_addr().ok();
        let is_operator = of_operators || admin::is_operator(&self.config.operators, remote, local);
        let channel =
            Channel::new(remote, is_operator, &self.config, self.resources.budget(), self.resources.clone());
        let admission = self.connections().admit(&channel);
        self.connections().tell_refused(remote, &admission);
        if admission == Admission::Refused {
            return;
        }
        // Replies are small and waited for: Nagle would hold them back.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%remote, "TCP_NODELAY cannot be set: {error}");
        }
        let (inner, service) = (self.clone(), service.clone());
        tokio::spawn(async move {
            let registered = Registered { inner: &inner, channel: channel.clone() };
            match admission {
                Admission::Guest(why) => {
                    let guest = Guest { service, why };
                    let ending = channel.clone();
                    tokio::select! {
                        () = connection::serve(stream, channel, &inner.guest_config, &guest) => {}
                        never = Guest::end_in_time(&ending) => match never {},
                    }
                }
                Admission::Open | Admission::Refused => {
                    connection::serve(stream, channel, &inner.config, &*service).await;
                }
            }
            drop(registered);
        });
    }
}

/// Takes the connection off the table, also when its task panicked.
struct Registered<'a> {
    inner: &'a Inner,
    channel: Channel,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.inner.connections().remove(&self.channel);
    }
}
