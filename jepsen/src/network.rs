//! How the nodes of a cluster reach each other, and how that is broken: by relays of ours, which
//! need nothing, or by network namespaces, which need root and are nearer to a network.

use std::process::{Child, Command};
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::netns::{HUB, Namespaces};
use crate::node::Addresses;
use crate::relay::{self, Flow};

/// The address of everything on this machine's own network.
const LOOPBACK: &str = "127.0.0.1";

/// Where nodes run.
#[derive(Clone, Default)]
pub enum Network {
    /// On this machine's loopback; relays are put between them when links are to break.
    #[default]
    Relays,
    /// Each in a network of its own.
    Namespaces(Arc<Namespaces>),
}

impl Network {
    /// Its name on the command line.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Relays => "relay",
            Self::Namespaces(_) => "namespaces",
        }
    }

    /// The address of the node in this place, from 1.
    #[must_use]
    pub fn host(&self, place: u64) -> String {
        match self {
            Self::Relays => LOOPBACK.to_owned(),
            Self::Namespaces(namespaces) => namespaces.address(place),
        }
    }

    /// Where nodes see the harness, if not on their own machine: it has to administer them.
    #[must_use]
    pub fn operator(&self) -> Option<&'static str> {
        match self {
            Self::Relays => None,
            Self::Namespaces(_) => Some(HUB),
        }
    }

    /// Where the node in this place listens.
    #[must_use]
    pub fn addresses(&self, base_port: u16, place: u64) -> Addresses {
        Addresses::at(&self.host(place), base_port, place)
    }

    /// Whether nodes dial their peers at relays.
    #[must_use]
    pub fn has_relays(&self) -> bool {
        matches!(self, Self::Relays)
    }

    /// Starts the process of the node in this place.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, place: u64, command: &mut Command) -> Result<Child> {
        match self {
            Self::Relays => command.spawn().context("start a process"),
            Self::Namespaces(namespaces) => namespaces.spawn(place, command),
        }
    }
}

/// The links of a cluster; whole again when this is dropped.
pub enum Links {
    /// Relays, which end with this.
    Relays(relay::Links),
    /// Rules in namespaces, which may serve the next cluster.
    Namespaces(Arc<Namespaces>),
}

impl Links {
    /// For whoever sets links while nobody else looks.
    #[must_use]
    pub fn setter(&self) -> Setter {
        match self {
            Self::Relays(links) => Setter::Relays(links.setter()),
            Self::Namespaces(namespaces) => Setter::Namespaces(Arc::clone(namespaces)),
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        if let Err(error) = self.setter().heal() {
            tracing::warn!(error = format!("{error:#}"), "links are left broken");
        }
    }
}

/// Sets the state of links; outlives them harmlessly.
#[derive(Clone)]
pub enum Setter {
    /// Of relays.
    Relays(relay::Setter),
    /// Of namespaces.
    Namespaces(Arc<Namespaces>),
}

impl Setter {
    /// All directions `(from, to)`.
    #[must_use]
    pub fn directions(&self) -> Vec<(u64, u64)> {
        match self {
            Self::Relays(setter) => setter.directions().collect(),
            Self::Namespaces(namespaces) => namespaces.directions().collect(),
        }
    }

    /// Sets what happens from `from` to `to`.
    ///
    /// # Errors
    /// When it could not be done.
    pub fn set(&self, from: u64, to: u64, flow: Flow) -> Result<()> {
        match self {
            Self::Relays(setter) => {
                setter.set(from, to, flow);
                Ok(())
            }
            Self::Namespaces(namespaces) => namespaces.set(from, to, flow),
        }
    }

    /// Everything passes at once again.
    ///
    /// # Errors
    /// When it could not be done.
    pub fn heal(&self) -> Result<()> {
        match self {
            Self::Relays(setter) => {
                setter.heal();
                Ok(())
            }
            Self::Namespaces(namespaces) => namespaces.heal(),
        }
    }

    /// What this state means here, in words.
    #[must_use]
    pub fn words(&self, flow: Flow) -> String {
        match (self, flow) {
            (Self::Relays(_), Flow::Swallow) => "bytes swallowed".to_owned(),
            (Self::Relays(_), Flow::Hold) => "bytes held back until healed".to_owned(),
            (Self::Relays(_), Flow::Refuse) => "connections refused".to_owned(),
            (Self::Namespaces(_), Flow::Swallow | Flow::Hold) => "packets dropped, nobody told".to_owned(),
            (Self::Namespaces(_), Flow::Refuse) => "packets dropped, senders told".to_owned(),
            (Self::Namespaces(_), Flow::Lossy { stalls, resets }) => {
                format!("{} of 1000 packets lost", stalls + resets)
            }
            (_, flow) => format!("{flow:?}"),
        }
    }
}
