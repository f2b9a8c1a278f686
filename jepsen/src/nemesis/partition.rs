//! Cuts between nodes: who cannot hear whom, and what a cut does with the bytes.
//!
//! Clients reach every node all the time: a leader nobody else hears keeps being asked to store
//! messages, and must not say that it did.

use super::{Dice, Doing, Fault, Needs, Nemesis, Target};
use crate::cluster::Cluster;
use crate::relay::Flow;

/// Which directions are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Nothing from the chosen nodes reaches the others, or nothing of the others reaches them.
    OneWay,
    /// The chosen nodes and the others are apart.
    Isolate,
    /// Each node lacks the link to one neighbour only, in a ring of one-way cuts: everybody hears a
    /// majority, nobody the same one.
    Ring,
    /// One node hears both sides, which do not hear each other.
    Bridge,
}

/// Cuts links until healed.
pub(super) struct Partition(pub(super) Shape);

/// What cuts there are; each injection draws one.
pub(super) const CUTS: [Flow; 3] = [Flow::Swallow, Flow::Hold, Flow::Refuse];

impl Shape {
    /// The directions `(from, to)` that are cut when `chosen` of `all` are to be.
    pub(super) fn cuts(self, all: &[u64], chosen: &[u64], dice: &mut Dice) -> Vec<(u64, u64)> {
        let others: Vec<u64> = all.iter().copied().filter(|id| !chosen.contains(id)).collect();
        match self {
            Self::OneWay if dice.one_in(2) => between(chosen, &others),
            Self::OneWay => between(&others, chosen),
            Self::Isolate => both_ways(chosen, &others),
            Self::Ring => (0..all.len()).map(|at| (all[at], all[(at + 1) % all.len()])).collect(),
            Self::Bridge => match others.split_first() {
                Some((_bridge, rest)) => both_ways(chosen, rest),
                None => Vec::new(),
            },
        }
    }
}

fn between(from: &[u64], to: &[u64]) -> Vec<(u64, u64)> {
    from.iter().flat_map(|from| to.iter().map(move |to| (*from, *to))).collect()
}

fn both_ways(one: &[u64], other: &[u64]) -> Vec<(u64, u64)> {
    let mut cuts = between(one, other);
    cuts.extend(between(other, one));
    cuts
}

impl Nemesis for Partition {
    fn name(&self) -> &'static str {
        match self.0 {
            Shape::OneWay => "partition-one-way",
            Shape::Isolate => "partition-isolate",
            Shape::Ring => "partition-ring",
            Shape::Bridge => "partition-bridge",
        }
    }

    fn about(&self) -> &'static str {
        match self.0 {
            Shape::OneWay => {
                "nodes are not heard, or do not hear; what is sent is lost, held back or refused"
            }
            Shape::Isolate => "nodes are cut off from the others, both ways",
            Shape::Ring => "each node does not reach its neighbour in a ring: different majorities",
            Shape::Bridge => "two sides that only one node between them hears both of",
        }
    }

    fn targets(&self) -> &'static [Target] {
        match self.0 {
            Shape::Ring => &[Target::All],
            Shape::Bridge => &[Target::Leader, Target::Follower],
            Shape::OneWay | Shape::Isolate => &[Target::Leader, Target::Follower, Target::Minority],
        }
    }

    fn needs(&self) -> Needs {
        Needs { links: true, ..Needs::default() }
    }

    fn inject<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        nodes: &'a [u64],
        dice: &'a mut Dice,
    ) -> Doing<'a, Fault> {
        Box::pin(async move {
            let flow = CUTS[dice.below(CUTS.len() as u64) as usize];
            let mut all = cluster.ids();
            dice.shuffle(&mut all);
            let cuts = self.0.cuts(&all, nodes, dice);
            let links = cluster.links()?;
            cuts.iter().try_for_each(|(from, to)| links.set(*from, *to, flow))?;
            Ok(Fault::new(nodes, format!("cut {cuts:?}, {}", links.words(flow))))
        })
    }

    fn heal<'a>(&'a mut self, cluster: &'a mut Cluster) -> Doing<'a, ()> {
        Box::pin(async move { cluster.links()?.heal() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cuts(shape: Shape, chosen: &[u64], seed: u64) -> Vec<(u64, u64)> {
        let mut cuts = shape.cuts(&[1, 2, 3], chosen, &mut Dice::new(seed));
        cuts.sort_unstable();
        cuts
    }

    #[test]
    fn each_shape_cuts_the_directions_it_is_named_for() {
        assert_eq!(cuts(Shape::Isolate, &[1], 0), [(1, 2), (1, 3), (2, 1), (3, 1)]);
        assert_eq!(cuts(Shape::Ring, &[1, 2, 3], 0), [(1, 2), (2, 3), (3, 1)]);
        assert_eq!(cuts(Shape::Bridge, &[1], 0), [(1, 3), (3, 1)]);
        let ways: std::collections::BTreeSet<_> =
            (0..20).map(|seed| cuts(Shape::OneWay, &[1], seed)).collect();
        let either = [vec![(1, 2), (1, 3)], vec![(2, 1), (3, 1)]];
        assert_eq!(ways, either.into_iter().collect());
    }
}
