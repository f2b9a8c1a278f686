//! How much of the table each connection holds, and who gives way when it is full.
//!
//! A poll has a weight: one, and one more for each KiB that it keeps. When the table holds more than it may, the connection
//! that holds most gives up its oldest poll; of connections that hold the same, the youngest one. So whoever fills the
//! table gives way to whoever comes, and a connection that never holds more than an equal part is never asked to
//! (`polls.I4`): were it the one that holds most, all together would hold no more than the limit.
//!
//! Connections rather than addresses: behind one address may be every client of a site, and how many connections an
//! address may have is limited where they are accepted.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::ticket::Ticket;

/// What the polls of each connection weigh.
#[derive(Default)]
pub(super) struct Shares {
    holders: HashMap<u64, Holder>,
    by_weight: BTreeSet<(usize, u64)>,
    total: usize,
}

#[derive(Default)]
struct Holder {
    weight: usize,
    polls: BTreeMap<Ticket, usize>,
}

impl Shares {
    pub(super) fn add(&mut self, connection: u64, ticket: Ticket, weight: usize) {
        let holder = self.holders.entry(connection).or_default();
        self.by_weight.remove(&(holder.weight, connection));
        holder.polls.insert(ticket, weight);
        holder.weight += weight;
        self.total += weight;
        self.by_weight.insert((holder.weight, connection));
    }

    pub(super) fn remove(&mut self, connection: u64, ticket: Ticket) {
        let Some(holder) = self.holders.get_mut(&connection) else { return };
        let Some(weight) = holder.polls.remove(&ticket) else { return };
        self.by_weight.remove(&(holder.weight, connection));
        holder.weight -= weight;
        self.total -= weight;
        if holder.polls.is_empty() {
            self.holders.remove(&connection);
        } else {
            self.by_weight.insert((holder.weight, connection));
        }
    }

    /// Who gives way, if all together hold more than `limit`, or one connection more than `connection_limit`.
    pub(super) fn gives_way(&self, limit: usize, connection_limit: usize) -> Option<Ticket> {
        let (largest, connection) = self.by_weight.last()?;
        if self.total <= limit && *largest <= connection_limit {
            return None;
        }
        self.holders.get(connection)?.polls.keys().next().copied()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.holders.is_empty() && self.by_weight.is_empty() && self.total == 0
    }
}
