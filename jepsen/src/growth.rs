//! A group that grows from one node, shrinks back and has every member replaced, as an operator does it.
//!
//! Members have places, which are addresses: whoever takes the place of another has its address and a new id. A disk
//! is emptied at any step at which the other members hold everything; a group of one has no other member.

use anyhow::{Context, Result, ensure};

use crate::admin;
use crate::cluster::Cluster;
use crate::nemesis::Dice;

/// Changes the membership of one cluster, step by step.
#[derive(Debug, Default)]
pub struct Growth {
    /// The last id that was given: none is used twice in a group.
    last: u64,
    /// What was done, in words.
    done: Vec<String>,
}

impl Growth {
    /// What was done since the last time, in words.
    pub fn words(&mut self) -> String {
        std::mem::take(&mut self.done).join(", ")
    }

    /// Adds empty nodes until every place is taken.
    ///
    /// # Errors
    /// When a node is no voter in time.
    pub async fn fill(&mut self, cluster: &mut Cluster, mut dice: Option<&mut Dice>) -> Result<()> {
        while let Some(place) = cluster.free_place() {
            self.add(cluster, place).await?;
            self.perhaps_empty(cluster, dice.as_deref_mut()).await?;
        }
        Ok(())
    }

    /// Adds an empty node in this place.
    ///
    /// # Errors
    /// When it is no voter in time.
    pub async fn add(&mut self, cluster: &mut Cluster, place: u64) -> Result<u64> {
        prepare_first(cluster).await?;
        self.know(cluster);
        self.last += 1;
        let id = self.last;
        cluster.start_joining_at(id, place)?;
        let at = cluster.node(id)?.addresses.clone();
        admin::add_node(cluster, id, &at).await.with_context(|| format!("add node {id} in place {place}"))?;
        cluster.caught_up().await?;
        self.done.push(format!("node {id} added in place {place}"));
        Ok(id)
    }

    /// Notes the ids that are in use: whoever is taken out keeps its own for ever.
    fn know(&mut self, cluster: &Cluster) {
        self.last = cluster.ids().into_iter().fold(self.last, u64::max);
    }

    /// Takes a member out: dead, or as it runs.
    ///
    /// # Errors
    /// When it is still a voter after a time.
    pub async fn remove(&mut self, cluster: &mut Cluster, id: u64, dead: bool) -> Result<u64> {
        ensure!(cluster.ids().len() > 1, "the last member cannot be taken out");
        self.know(cluster);
        let place = cluster.node(id)?.place();
        if dead {
            cluster.node_mut(id)?.kill()?;
        }
        admin::remove_node(cluster, id).await.with_context(|| format!("remove node {id}"))?;
        cluster.retire(id)?;
        self.done.push(format!("{} node {id} removed", if dead { "dead" } else { "running" }));
        Ok(place)
    }

    /// Puts an empty node with a new id in the place of a member.
    ///
    /// # Errors
    /// When one of the two steps is not done in time.
    pub async fn replace(&mut self, cluster: &mut Cluster, id: u64, dice: Option<&mut Dice>) -> Result<()> {
        let mut dice = dice;
        let dead = dice.as_deref_mut().is_none_or(|dice| !dice.one_in(3));
        let place = self.remove(cluster, id, dead).await?;
        self.perhaps_empty(cluster, dice.as_deref_mut()).await?;
        self.add(cluster, place).await?;
        self.perhaps_empty(cluster, dice).await
    }

    /// Takes members out until one is left, which may be another than the first.
    ///
    /// # Errors
    /// When a step is not done in time.
    pub async fn shrink(&mut self, cluster: &mut Cluster, dice: &mut Dice) -> Result<()> {
        while cluster.ids().len() > 1 {
            let id = *dice.one_of(&cluster.ids()).context("a member")?;
            // Of two, both are needed to take one out.
            let dead = cluster.ids().len() > 2 && dice.one_in(2);
            self.remove(cluster, id, dead).await?;
        }
        Ok(())
    }

    async fn perhaps_empty(&mut self, cluster: &mut Cluster, dice: Option<&mut Dice>) -> Result<()> {
        let Some(dice) = dice else { return Ok(()) };
        let ids = cluster.ids();
        if ids.len() < 2 || !dice.one_in(2) {
            return Ok(());
        }
        // The first one's own configuration knows no other member: the hardest to get right.
        let first = ids.contains(&1) && dice.one_in(2);
        let id = if first { 1 } else { *dice.one_of(&ids).context("a member")? };
        self.empty(cluster, id).await
    }

    /// Kills a member, gives it an empty disk and starts it again.
    ///
    /// # Errors
    /// When it has not caught up in time.
    pub async fn empty(&mut self, cluster: &mut Cluster, id: u64) -> Result<()> {
        // What it alone has of the log would be gone: the others must have all that is committed.
        cluster.caught_up().await?;
        let node = cluster.node_mut(id)?;
        node.kill()?;
        node.wipe_everything()?;
        node.start()?;
        self.done.push(format!("node {id} has an empty disk"));
        cluster.caught_up().await.with_context(|| format!("node {id} started with an empty disk"))
    }
}

/// Before a node that was alone gets others: the key goes by which it may found a group alone, and it restarts.
async fn prepare_first(cluster: &mut Cluster) -> Result<()> {
    for id in cluster.ids() {
        let node = cluster.node_mut(id)?;
        if node.forget_single_node()? {
            node.kill()?;
            node.start()?;
        }
    }
    cluster.leader().await.map(drop)
}
