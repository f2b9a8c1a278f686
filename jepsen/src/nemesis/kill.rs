//! kill -9, and a start when healed.

use super::{Dice, Doing, Fault, Nemesis, Target};
use crate::cluster::Cluster;

/// Kills the processes, one right after the other.
pub(super) struct Kill;

impl Nemesis for Kill {
    fn name(&self) -> &'static str {
        "kill"
    }

    fn about(&self) -> &'static str {
        "kill -9, started again when healed"
    }

    fn targets(&self) -> &'static [Target] {
        &[Target::Leader, Target::Follower, Target::Majority, Target::All]
    }

    fn inject<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        nodes: &'a [u64],
        _dice: &'a mut Dice,
    ) -> Doing<'a, Fault> {
        Box::pin(async move {
            for id in nodes {
                cluster.node_mut(*id)?.kill()?;
            }
            Ok(Fault::new(nodes, "kill -9"))
        })
    }
}
