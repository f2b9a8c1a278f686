//! Every nemesis, and whether this machine has what it needs.

use std::sync::LazyLock;

use super::partition::Shape;
use super::place::Place;
use super::weather::Kind;
use super::{
    Nemesis, Skip, clock, disk, eio, full_retention, grow, kill, membership, partition, pause, power_cut,
    restart, rot, rot_snapshot, stalls, swap, weather,
};
use crate::ext4;
use crate::lossy;
use crate::network::Network;

/// Every nemesis there is.
#[must_use]
pub fn all() -> Vec<Box<dyn Nemesis>> {
    let mut all: Vec<Box<dyn Nemesis>> = vec![
        Box::new(kill::Kill),
        Box::new(pause::Pause::short()),
        Box::new(pause::Pause::long()),
        Box::new(restart::Storm),
        Box::new(restart::Rolling),
        Box::new(restart::HandOver),
        Box::new(stalls::Stalls::new()),
        Box::new(membership::Membership::new()),
        Box::new(grow::Grow::default()),
        Box::new(swap::Swap(swap::Disk::Empty)),
        Box::new(swap::Swap(swap::Disk::Old)),
    ];
    for (place, live) in [
        (Place::Log, false),
        (Place::Log, true),
        (Place::Derived, false),
        (Place::Derived, true),
        (Place::Vote, false),
    ] {
        all.push(Box::new(rot::Rot::new(place, live)));
    }
    all.push(Box::new(rot_snapshot::RotSnapshot::new()));
    all.push(Box::new(eio::Unreadable));
    all.push(Box::new(clock::Clock));
    all.push(Box::new(power_cut::PowerCut));
    for kind in [disk::Kind::Full, disk::Kind::Slow, disk::Kind::WriteError, disk::Kind::SyncError] {
        all.push(Box::new(disk::DiskFault(kind)));
    }
    all.push(Box::new(full_retention::FullRetention::new()));
    for shape in [Shape::OneWay, Shape::Isolate, Shape::Ring, Shape::Bridge] {
        all.push(Box::new(partition::Partition(shape)));
    }
    for kind in [Kind::Flapping, Kind::Slow, Kind::Lossy] {
        all.push(Box::new(weather::Weather::new(kind)));
    }
    all
}

/// Whether this machine has what the nemesis needs where the nodes are to run.
///
/// # Errors
/// With the reason why not, by name.
pub fn available(nemesis: &dyn Nemesis, network: &Network) -> std::result::Result<(), Skip> {
    static FUSE: LazyLock<std::result::Result<(), String>> = LazyLock::new(lossy::check);
    static EXT4: LazyLock<std::result::Result<(), String>> = LazyLock::new(ext4::check);
    let needs = nemesis.needs();
    if let Network::Namespaces(namespaces) = network {
        if needs.late_links {
            namespaces.delays().map_err(Skip::NoDelay)?;
        }
        if needs.lossy_links {
            namespaces.loses().map_err(Skip::NoLoss)?;
        }
    }
    if needs.lossy {
        (*FUSE).clone().map_err(Skip::NoFuse)?;
    }
    if needs.ext4 {
        (*EXT4).clone().map_err(Skip::NoExt4)?;
    }
    if needs.clock {
        crate::clock::library().map_err(Skip::NoClock)?;
    }
    Ok(())
}
