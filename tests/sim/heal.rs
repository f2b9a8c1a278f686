//! The end of a run: faults have ended, so within a bound of simulated time the cluster must elect, take messages, and
//! have everything everywhere.

use std::collections::BTreeMap;
use std::path::PathBuf;

use folio_engine::checkpoint::Checkpoint;
use folio_raft::group::Group;
use folio_raft::status::Role;

use crate::check::{Checked, violation};
use crate::client::{QUEUES, TOPICS};
use crate::node::SEGMENT_BYTES;
use crate::world::World;

/// By then a message must be acknowledged again, and all nodes be level; milliseconds.
const HEAL_MS: u64 = 15_000;
/// Messages that are sent to see that the cluster serves.
const PROOF: u64 = 20;
/// Pause between two looks at a cluster in which something rotted.
const LOOK_EVERY_MS: u64 = 200;

pub(crate) fn heal(world: &mut World) -> Checked {
    let deadline = world.clock.now() + HEAL_MS;
    let before = world.checks.oracle.acknowledged;
    while world.checks.oracle.acknowledged < before + PROOF {
        if world.clock.now() > deadline {
            return Err(stuck(world, "no messages are taken"));
        }
        world.step()?;
    }
    world.trace.event("serves again");
    world.clients.rate = 0;
    while !is_level(world) {
        if world.clock.now() > deadline {
            return Err(stuck(world, "the nodes are not level"));
        }
        world.step()?;
    }
    world.trace.event("level");
    // Rot that nobody has read yet is found by the scrub.
    while let Err(broken) = check_everywhere(world) {
        if world.weak.is_none() || world.clock.now() > deadline {
            return Err(broken);
        }
        for _ in 0..LOOK_EVERY_MS {
            world.step()?;
        }
    }
    while let Err(broken) = check_snapshots(world) {
        if world.clock.now() > deadline {
            return Err(broken);
        }
        world.step()?;
    }
    world.trace.event("whole");
    Ok(())
}

fn stuck(world: &World, what: &str) -> crate::check::Violation {
    let state: Vec<String> = world
        .nodes
        .iter()
        .map(|(id, node)| match (world.seen.get(id), node.failure(world.seen.get(id))) {
            (_, Some(failure)) => format!("node {id} failed: {failure}"),
            (Some(status), None) => format!("{status:?}"),
            (None, None) => format!("node {id} is not up"),
        })
        .collect();
    violation("heals", format!("{what} {HEAL_MS} ms after the faults ended: {}", state.join("\n")))
}

/// One leader, known to all, and all have applied the same.
fn is_level(world: &World) -> bool {
    let leaders: Vec<_> = world.seen.values().filter(|status| status.role == Role::Leader).collect();
    let [leader] = leaders[..] else { return false };
    let last = leader.last.map_or(0, |last| last.index);
    world.change.is_none()
        && leader.members.keys().eq(world.seen.keys())
        && world.seen.values().all(|status| {
            status.leader == Some(leader.node_id)
                && status.applied == last
                && status.applied >= world.checks.committed.last()
        })
}

/// Every node serves what was committed: the same log bytes, queues and state, and every acknowledged message.
fn check_everywhere(world: &World) -> Checked {
    world.checks.oracle.check_kept()?;
    let groups: BTreeMap<u64, Group> =
        world.nodes.iter().filter_map(|(id, node)| Some((*id, node.group()?))).collect();
    let Some(first) = groups.values().next() else { return Err(violation("heals", "no node is up")) };
    for (id, group) in &groups {
        check_log(world, *id, group)?;
        check_sectors(world, *id, group)?;
        check_queues(world, *id, group)?;
        world.checks.oracle.timers.check_node(group)?;
        world.checks.oracle.transactions.check_node(group)?;
        world.checks.oracle.popped.check_node(group)?;
        if *group.state() != *first.state() {
            return Err(violation("equal state", format!("node {id} differs from node {}", first.node_id())));
        }
        for topic in TOPICS {
            for queue in 0..QUEUES {
                // Each node has dropped its oldest segments at a time of its own.
                let bounds = |group: &Group| {
                    let bounds = group.queues().bounds(topic, queue);
                    bounds.map(|(begin, end)| (world.setup.retain.is_none().then_some(begin), end))
                };
                if bounds(group) != bounds(first) {
                    let seen = format!("{topic} {queue} is {:?} on node {id}", bounds(group));
                    return Err(violation("equal queues", seen));
                }
            }
        }
    }
    Ok(())
}

/// Where a new replica would start is there and whole on every node, whatever became of it before.
fn check_snapshots(world: &World) -> Checked {
    for (id, node) in &world.nodes {
        let Some(group) = node.group() else { continue };
        let (state, starts) = (group.log().state(), group.log().segment_starts());
        if state.purged.is_none() {
            continue;
        }
        let position = starts.first().map_or(state.start_position, |(position, _)| *position);
        let path = PathBuf::from(format!("/data/snapshots/{position:020}"));
        let file = node.machine.disk.dump().remove(&path).flatten().unwrap_or_default();
        let base = Checkpoint::decode(&file.into()).map(|checkpoint| checkpoint.base.id);
        if base != Ok(state.purged) {
            let seen = format!("node {id}: the snapshot of its log's start at {position}: {base:?}");
            return Err(violation("snapshots are repaired", seen));
        }
    }
    Ok(())
}

fn check_log(world: &World, id: u64, group: &Group) -> Checked {
    let first = group.log().state().first_index;
    let disk = world.nodes[&id].machine.disk.dump();
    let mut end = None;
    for expected in world.checks.committed.records().filter(|record| record.header.index >= first) {
        if let Some(end) = end.replace(expected.end()).filter(|end| *end < expected.position()) {
            check_filler(&disk, id, end)?;
        }
        let index = expected.header.index;
        let found = group.log().read(index, index + 1, 1);
        let same =
            found.is_ok_and(|found| found.first().is_some_and(|found| found.frame() == expected.frame()));
        let bytes = group.log().bytes(expected.position(), expected.frame().len());
        if !same || bytes.ok().as_ref() != Some(expected.frame()) {
            return Err(violation("identical bytes", format!("node {id}, entry {}", expected.id())));
        }
        let (base, at) = (expected.position() / SEGMENT_BYTES * SEGMENT_BYTES, expected.position());
        let path = PathBuf::from(format!("/data/commitlog/{base:020}"));
        let at = (at - base) as usize;
        let file = disk.get(&path).and_then(|content| content.as_ref());
        let stored = file.and_then(|file| file.get(at..at + expected.frame().len()));
        if stored != Some(&expected.frame()[..]) {
            return Err(violation(
                "identical bytes",
                format!("node {id}, entry {} on its disk", expected.id()),
            ));
        }
    }
    Ok(())
}

/// What lies behind a segment's last record is zero (`damage.I6`).
fn check_filler(disk: &BTreeMap<PathBuf, Option<Vec<u8>>>, id: u64, end: u64) -> Checked {
    let base = end / SEGMENT_BYTES * SEGMENT_BYTES;
    let file = disk.get(&PathBuf::from(format!("/data/commitlog/{base:020}"))).and_then(Option::as_ref);
    let filler = file.and_then(|file| file.get((end - base) as usize..));
    if filler.is_some_and(|filler| filler.iter().all(|byte| *byte == 0)) {
        return Ok(());
    }
    Err(violation("identical bytes", format!("node {id}, the filler from {end} on")))
}

/// What could not be read was written again (`damage.I3`, `damage.I6`).
fn check_sectors(world: &World, id: u64, group: &Group) -> Checked {
    let log = group.log().state();
    for (path, bytes) in world.nodes[&id].machine.disk.lost() {
        let name = path.file_name().and_then(|name| name.to_str());
        let base =
            name.filter(|_| path.starts_with("/data/commitlog")).and_then(|name| name.parse::<u64>().ok());
        let Some(base) = base else { continue };
        if base + bytes.start >= log.start_position && base + bytes.start < log.next_position {
            let seen = format!("node {id}: {} is not readable at {bytes:?}", path.display());
            return Err(violation("identical bytes", seen));
        }
    }
    Ok(())
}

fn check_queues(world: &World, id: u64, group: &Group) -> Checked {
    let start = group.log().state().start_position;
    for (message, place) in world.checks.oracle.acknowledged_places() {
        if place.position < start {
            continue;
        }
        let units = group.queues().units(&place.topic, place.queue, place.offset, 1);
        let position = units.ok().and_then(|units| units.first().map(|unit| unit.position));
        let begin = world.checks.oracle.deleted.begin(&place.topic, place.queue, u64::MAX);
        if place.offset < begin {
            match position {
                None => continue,
                Some(_) => {
                    let seen = format!("node {id}: message {message} at {place:?}, deleted below {begin}");
                    return Err(violation("deleted is not served", seen));
                }
            }
        }
        if position != Some(place.position) {
            let seen = format!("node {id}: message {message} at {place:?}, its queue says {position:?}");
            return Err(violation("acknowledged is served", seen));
        }
    }
    Ok(())
}
