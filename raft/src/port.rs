//! The Raft port of one node: one listener for the peers of all groups that the node hosts. It brings a caller to the group
//! that its hello names, and turns everybody else away.
//!
//! The limits of connections and of the memory of large frames are the node's: all groups share them.
//!
//! - `port.I1`: a caller reaches the group that its hello names, and no other. A hello without a name is an earlier build's,
//!   whose nodes host one group: it is taken for the first group of the node, and refused if it meant another one.
//! - `port.I2`: a group that stops takes its connections along, and leaves those of the other groups alone. A port of one group
//!   ends with it: peers take a refused connection for a dead process, and one of them leads at once.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::accepting::Accepting;
use crate::config::GroupConfig;
use crate::group::tasks;
use crate::host::{Listener, Net, Socket};
use crate::log_rate_limiter::LogRateLimiter;
use crate::secret::ClusterSecret;
use crate::transport::admission::{Admission, Ticket};
use crate::transport::frames::{FrameReader, FrameWriter, arriving_budget};
use crate::transport::handshake::{self, Caller, HANDSHAKE_TIMEOUT, NotMet};
use crate::transport::introduction::NodeIdentity;
use crate::transport::listener::{Admitted, Mismatch};
use crate::transport::peer::Peers;
use crate::transport::wire::Kind;

/// Pause after a connection could not be accepted: there may be no descriptor for it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that wait for their group's task: more than all members open at once.
const WAITING_MAX: usize = 64;

/// What a node's Raft port needs to know.
#[derive(Debug, Clone)]
pub struct PortConfig {
    /// The cluster's name.
    pub cluster: String,
    /// Where to listen for peers.
    pub listen: SocketAddr,
    /// What peers prove to each other that they have; `None`: a peer's word for its id is taken.
    pub secret: Option<ClusterSecret>,
    /// The names of the groups that the node hosts. The first one is called by peers that name none.
    pub groups: Vec<String>,
}

impl PortConfig {
    /// Of a node that hosts one group.
    pub(crate) fn of(config: &GroupConfig) -> PortConfig {
        PortConfig {
            cluster: config.cluster.clone(),
            listen: config.listen,
            secret: config.secret.clone(),
            groups: vec![config.group.clone()],
        }
    }
}

/// Where the connections of one group go.
#[derive(Clone)]
struct Door {
    peers: Weak<Peers>,
    admitted: mpsc::Sender<Admitted>,
}

type Doors = BTreeMap<Arc<str>, Door>;

struct Port {
    identity: NodeIdentity,
    doors: watch::Sender<Doors>,
    admission: Arc<Admission>,
    /// Large frames that arrive.
    arriving: Arc<Semaphore>,
    /// Lines about callers that were turned away.
    refusals: LogRateLimiter,
}

/// The Raft port of one node; clones are the same port.
#[derive(Clone)]
pub struct RaftPort {
    port: Arc<Port>,
    accepting: Accepting,
}

/// The connections of one group; dropped, the group is not hosted any more.
pub(crate) struct Connections {
    pub(crate) admitted: mpsc::Receiver<Admitted>,
    registered: Registered,
}

struct Registered {
    port: Arc<Port>,
    group: Arc<str>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.port.doors.send_modify(|doors| drop(doors.remove(&self.group)));
    }
}

impl RaftPort {
    /// Takes the port. Callers wait until the first group is there.
    pub async fn open(net: &dyn Net, config: PortConfig) -> io::Result<RaftPort> {
        handshake::warn_if_open(config.secret.is_some(), config.listen);
        let listener = net.listen(config.listen).await?;
        let PortConfig { cluster, secret, groups, .. } = config;
        let (admission, refusals) = Default::default();
        let port = Arc::new(Port {
            identity: NodeIdentity { cluster, secret, groups },
            doors: watch::Sender::default(),
            admission,
            arriving: arriving_budget(),
            refusals,
        });
        let task = tokio::spawn(port.clone().accept(listener));
        Ok(RaftPort { port, accepting: Accepting::new(task) })
    }

    /// Accepts no caller any more; the port is free then. Connections of groups that run stay.
    pub async fn close(&self) {
        self.accepting.close().await;
    }

    /// The task that accepts, if the port has one group: the port ends with the group then.
    pub(crate) fn of_one_group(&self) -> Option<Accepting> {
        (self.port.identity.groups.len() == 1).then(|| self.accepting.clone())
    }

    /// From now on callers of this group reach it; `None` if the port was not opened for it, or it is there already.
    pub(crate) fn host(&self, group: &str, peers: &Arc<Peers>) -> Option<Connections> {
        let group = Arc::<str>::from(group);
        if !self.port.identity.groups.iter().any(|hosted| **hosted == *group) {
            return None;
        }
        let (sender, admitted) = mpsc::channel(WAITING_MAX);
        let door = Door { peers: Arc::downgrade(peers), admitted: sender };
        let is_new = self.port.doors.send_if_modified(|doors| {
            let is_new = !doors.contains_key(&group);
            doors.entry(group.clone()).or_insert(door);
            is_new
        });
        let port = self.port.clone();
        is_new.then(|| Connections { admitted, registered: Registered { port, group } })
    }
}

impl Connections {
    /// Serves them until the task is aborted.
    pub(crate) async fn serve(self, peers: Arc<Peers>) {
        let Connections { admitted, registered } = self;
        peers.serve_all(admitted).await;
        drop(registered);
    }
}

impl Port {
    async fn accept(self: Arc<Self>, mut listener: Box<dyn Listener>) {
        // Until then nobody is there to be asked; a caller's connection waits in the listener's backlog.
        drop(self.doors.subscribe().wait_for(|doors| !doors.is_empty()).await);
        let (mut meetings, failures) = (JoinSet::new(), LogRateLimiter::default());
        loop {
            while meetings.try_join_next().is_some() {}
            match listener.accept().await {
                Ok(socket) => {
                    let (port, from) = (self.clone(), socket.peer.clone());
                    let ticket = self.admission.arrive(&from);
                    meetings.spawn(async move {
                        let meeting =
                            tasks::caught("a peer's connection", port.meet(socket, ticket), |why| {
                                port.fail(why)
                            });
                        if let Err(error) = meeting.await {
                            tracing::debug!(%from, %error, "peer connection ended");
                        }
                    });
                }
                Err(error) => {
                    if failures.admit().is_some() {
                        tracing::warn!(%error, "cannot accept a peer's connection");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Ends this node's part in all its groups: their port is broken.
    fn fail(&self, reason: &str) {
        let peers: Vec<_> = self.doors.borrow().values().filter_map(|door| door.peers.upgrade()).collect();
        peers.iter().for_each(|peers| peers.shared.fail(reason));
    }

    /// The handshake; then the connection is its group's.
    async fn meet(&self, socket: Socket, mut ticket: Ticket) -> io::Result<()> {
        let from = socket.peer;
        let (mut reader, mut writer) =
            (FrameReader::of_stranger(socket.reader), FrameWriter::new(socket.writer));
        let meeting = timeout(HANDSHAKE_TIMEOUT, self.welcome(&from, &mut reader, &mut writer));
        let met = tokio::select! {
            met = meeting => met.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            () = ticket.ended() => Err(io::Error::other("peer.I8: its place was given to another connection")),
        };
        let (caller, door) = match met {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                self.note_refusal(
                    &from,
                    "it did not finish its handshake in time, or its group is still starting here",
                );
                return Err(error);
            }
            met => met?,
        };
        let Some(peers) = door.peers.upgrade() else { return Err(stopping()) };
        ticket.admit(&caller.group, caller.hello.from, peers.is_known(caller.hello.from));
        reader.trust(Some(self.arriving.clone()));
        door.admitted.try_send(Admitted { caller, reader, writer, ticket }).map_err(|_| stopping())
    }

    /// The handshake, up to the answer that ends it.
    async fn welcome(
        &self,
        from: &str,
        reader: &mut FrameReader,
        writer: &mut FrameWriter,
    ) -> io::Result<(Caller, Door)> {
        let caller = match handshake::meet(reader, writer, &self.identity).await {
            Ok(caller) => caller,
            Err(NotMet::Left) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(NotMet::Refused { told, why }) => {
                self.note_refusal(from, &why);
                if let Some(told) = told {
                    writer.write(Kind::Failure, 0, vec![told.into()]).await?;
                }
                return Err(io::Error::other(why));
            }
        };
        match self.door_for(&caller).await {
            Ok(door) => {
                writer.write(Kind::Answer, 0, Vec::new()).await?;
                Ok((caller, door))
            }
            Err(reason) => {
                if reason.is_news() {
                    self.note_refusal(
                        from,
                        &format!("it says that it is node {}: {reason}", caller.hello.from),
                    );
                }
                // peer.I7
                let told = if self.identity.secret.is_some() {
                    reason.to_string()
                } else {
                    handshake::REFUSED.to_owned()
                };
                writer.write(Kind::Failure, 0, vec![told.into()]).await?;
                Err(io::Error::other(reason))
            }
        }
    }

    /// The group that a caller may speak to (`port.I1`). Waits for a group that is still starting.
    async fn door_for(&self, caller: &Caller) -> Result<Door, Mismatch> {
        let not_hosted =
            || Mismatch::NotHosted { hosted: self.identity.groups.clone(), wanted: caller.group.to_string() };
        if !self.identity.groups.iter().any(|group| **group == *caller.group) {
            return Err(not_hosted());
        }
        let mut doors = self.doors.subscribe();
        let doors = doors.wait_for(|doors| doors.contains_key(&caller.group)).await;
        let door = doors.ok().and_then(|doors| doors.get(&caller.group).cloned()).ok_or_else(not_hosted)?;
        let peers = door.peers.upgrade().ok_or_else(not_hosted)?;
        peers.check(caller)?;
        Ok(door)
    }

    fn note_refusal(&self, from: &str, why: &str) {
        if self.refusals.admit().is_some() {
            tracing::warn!(%from, why, "a caller was turned away from the Raft port");
        }
    }
}

fn stopping() -> io::Error {
    io::Error::other("the group stops, or has too many new connections")
}
