//! TCP relays between the nodes, one for each ordered pair, so that links break without root.
//!
//! Node `a` dials node `b` at the relay `a -> b` (`[dial]` in its configuration), which connects on
//! to `b`. The connection carries bytes both ways; those from `a` to `b` obey the state of the
//! direction `a -> b`, the answers that of `b -> a`, also on the connections `b` dialed. So a cut
//! of one direction is what a cut of one direction of a network is: requests arrive and answers do
//! not, or the other way round.
//!
//! What it is not: a network. There are no packets, so none is lost, doubled or out of order (see
//! [`Flow`]); a connection to a cut-off node is accepted by the relay and then silent, where a real
//! one would not be accepted.
//!
//! Clients do not go through it: a client reaches a node that its peers do not.

mod flow;
mod pump;

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

pub use flow::Flow;

use pump::{Broken, pump};

use crate::nemesis::Dice;

/// The states of all directions, shared by all relays: `(from, to)`.
type Directions = HashMap<(u64, u64), watch::Sender<Flow>>;

/// One link to relay: `from` dials `listen`, `to` is at `target`.
#[derive(Debug, Clone)]
pub struct Link {
    /// The node that dials.
    pub from: u64,
    /// The node that is dialed.
    pub to: u64,
    /// Where the relay listens.
    pub listen: String,
    /// Where the dialed node listens.
    pub target: String,
}

/// All relays of a cluster, on a thread of their own; they end, and their ports are free, when this is
/// dropped.
pub struct Links {
    setter: Setter,
    thread: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// Sets the state of links; outlives them harmlessly.
#[derive(Clone)]
pub struct Setter(Arc<Directions>);

impl std::ops::Deref for Links {
    type Target = Setter;

    fn deref(&self) -> &Setter {
        &self.setter
    }
}

impl Links {
    /// Starts a relay for each link.
    ///
    /// # Errors
    /// When a port is taken.
    pub fn start(links: &[Link]) -> Result<Self> {
        let pairs = links.iter().flat_map(|link| [(link.from, link.to), (link.to, link.from)]);
        let directions: Arc<Directions> =
            Arc::new(pairs.map(|pair| (pair, watch::Sender::new(Flow::Pass))).collect());
        let mut listeners = Vec::new();
        for link in links {
            let listener = std::net::TcpListener::bind(&link.listen)
                .with_context(|| format!("listen at {} for node {}", link.listen, link.from))?;
            listener.set_nonblocking(true).context("make a listener asynchronous")?;
            listeners.push((listener, link.clone()));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("start the relays' runtime")?;
        let (stop, stopped) = oneshot::channel();
        let setter = Setter(Arc::clone(&directions));
        let thread = std::thread::Builder::new().name("relays".to_owned());
        let thread = thread.spawn(move || runtime.block_on(run(listeners, directions, stopped)));
        Ok(Self { setter, thread: Some((stop, thread.context("start the relays' thread")?)) })
    }

    /// For whoever sets links while nobody else looks.
    #[must_use]
    pub fn setter(&self) -> Setter {
        self.setter.clone()
    }
}

impl Setter {
    /// All directions `(from, to)`.
    pub fn directions(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut all: Vec<(u64, u64)> = self.0.keys().copied().collect();
        all.sort_unstable();
        all.into_iter()
    }

    /// Sets what happens to bytes from `from` to `to`, on all connections between the two.
    pub fn set(&self, from: u64, to: u64, flow: Flow) {
        if let Some(direction) = self.0.get(&(from, to)) {
            direction.send_if_modified(|now| std::mem::replace(now, flow) != flow);
        }
    }

    /// Sets both directions between two nodes.
    pub fn set_both(&self, one: u64, other: u64, flow: Flow) {
        self.set(one, other, flow);
        self.set(other, one, flow);
    }

    /// Every direction passes bytes at once again.
    pub fn heal(&self) {
        for direction in self.0.values() {
            direction.send_if_modified(|now| std::mem::take(now) != Flow::Pass);
        }
    }

    /// What happens to bytes from `from` to `to` now.
    #[must_use]
    pub fn get(&self, from: u64, to: u64) -> Flow {
        self.0.get(&(from, to)).map_or(Flow::Pass, |direction| *direction.borrow())
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            // Whoever is gone already needs not be told.
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

/// All relays, until told to stop.
async fn run(
    listeners: Vec<(std::net::TcpListener, Link)>,
    directions: Arc<Directions>,
    stopped: oneshot::Receiver<()>,
) {
    let mut relays = JoinSet::new();
    for (listener, link) in listeners {
        match TcpListener::from_std(listener) {
            Ok(listener) => {
                relays.spawn(relay(listener, link, Arc::clone(&directions)));
            }
            Err(error) => tracing::error!(%error, at = link.listen, "no relay"),
        }
    }
    // An error means that the other side is gone, which is an end as well.
    let _ = stopped.await;
    relays.shutdown().await;
}

async fn relay(listener: TcpListener, link: Link, directions: Arc<Directions>) {
    let mut connections = JoinSet::new();
    let mut dice = Dice::new(link.from << 32 | link.to);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((dialed, _)) => {
                    connections.spawn(carry(dialed, link.clone(), Arc::clone(&directions), Dice::new(dice.roll())));
                }
                Err(error) => {
                    tracing::warn!(%error, "a relay cannot accept");
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries one connection until it ends on either side or is broken.
async fn carry(dialed: TcpStream, link: Link, directions: Arc<Directions>, mut dice: Dice) {
    let (Some(there), Some(back)) =
        (directions.get(&(link.from, link.to)), directions.get(&(link.to, link.from)))
    else {
        return;
    };
    let (mut there, back) = (there.subscribe(), back.subscribe());
    let target = match pump::until_it_passes(&mut there).await {
        Ok(()) => TcpStream::connect(&link.target).await.ok(),
        Err(Broken) => None,
    };
    let Some(target) = target else {
        pump::reset(&dialed);
        return;
    };
    // Small messages go out at once, as from the nodes' own sockets.
    let _ = (dialed.set_nodelay(true), target.set_nodelay(true));
    let (mut from_dialed, mut to_dialed) = dialed.into_split();
    let (mut from_target, mut to_target) = target.into_split();
    let mut dice_back = dice.clone();
    let carried = tokio::try_join!(
        pump(&mut from_dialed, &mut to_target, &there, &mut dice),
        pump(&mut from_target, &mut to_dialed, &back, &mut dice_back),
    );
    if let (Err(Broken), Ok(dialed), Ok(target)) =
        (carried, from_dialed.reunite(to_dialed), from_target.reunite(to_target))
    {
        pump::reset(&dialed);
        pump::reset(&target);
    }
}

#[cfg(test)]
mod tests;
