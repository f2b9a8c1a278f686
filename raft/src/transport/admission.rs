//! How many connections of peers this node holds, and which one ends when there are too many.
//!
//! Peers are never locked out: a place that is taken is given to the newest connection, and the oldest ends. Whoever is there
//! opens another one when it needs it; a connection whose peer is gone is always the older one. Before the handshake a flood
//! takes its places from itself: the oldest connection ends of the address that has most of them. A handshake takes about a
//! millisecond, so a peer's own is through before the flood comes round to it.
//!
//! - `peer.I8`: at most [`STRANGERS_MAX`] connections are in their handshake, [`STRANGERS_PER_ADDRESS_MAX`] of one address; a
//!   member of a group has at most [`PER_MEMBER_MAX`] for that group, and all ids that are no members together [`OUTSIDERS_MAX`].

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::log_rate_limiter::LogRateLimiter;

/// Connections in their handshake. Nine nodes on one machine, all started at once, have half of it.
const STRANGERS_MAX: usize = 64;
/// The same from one address.
const STRANGERS_PER_ADDRESS_MAX: usize = 48;
/// Connections of one member for one group: it has up to ten at a time, one for each purpose, and one more of each where the network was cut.
const PER_MEMBER_MAX: usize = 24;
/// Connections of nodes that are no members, as far as this node knows: those that wait to be added, or were just added.
const OUTSIDERS_MAX: usize = 32;

/// Whose places a connection takes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    /// In its handshake, from that address.
    Stranger(String),
    /// Of a group, by id.
    Member(Arc<str>, u64),
    Outsider,
}

struct Held {
    holder: Holder,
    /// Told when the connection has to end.
    end: Arc<Notify>,
}

#[derive(Default)]
struct Table {
    next: u64,
    /// In the order of their coming.
    held: BTreeMap<u64, Held>,
}

/// The connections of one node's Raft port.
#[derive(Default)]
pub(crate) struct Admission {
    table: Mutex<Table>,
    log_limiter: LogRateLimiter,
}

/// A place; it is free again when this is dropped.
pub(crate) struct Ticket {
    admission: Arc<Admission>,
    number: u64,
    end: Arc<Notify>,
}

impl Admission {
    /// A connection has come from `peer`, `host:port`.
    pub(crate) fn arrive(self: &Arc<Self>, peer: &str) -> Ticket {
        let address = peer.rsplit_once(':').map_or(peer, |(host, _)| host);
        let holder = Holder::Stranger(address.to_owned());
        let (number, end) = self.take(holder, None);
        Ticket { admission: self.clone(), number, end }
    }

    /// Gives a place to a new holder, and takes its old one back.
    fn take(&self, holder: Holder, before: Option<u64>) -> (u64, Arc<Notify>) {
        let mut table = self.table.lock();
        let end = match before.and_then(|number| table.held.remove(&number)) {
            Some(held) => held.end,
            None => Arc::default(),
        };
        if let Some(ended) = table.make_way(&holder)
            && self.log_limiter.admit().is_some()
        {
            tracing::warn!(holder = ?ended, "too many peer connections: the oldest one of this holder is closed");
        }
        let number = table.next;
        table.next += 1;
        table.held.insert(number, Held { holder, end: end.clone() });
        (number, end)
    }

    #[cfg(test)]
    fn held(&self) -> usize {
        self.table.lock().held.len()
    }
}

impl Table {
    /// Ends the connection whose place is needed, if one is; says whose it was.
    fn make_way(&mut self, new: &Holder) -> Option<Holder> {
        let full = match new {
            Holder::Stranger(_) => self.busiest_stranger(new),
            Holder::Member(..) => (self.count(new) >= PER_MEMBER_MAX).then(|| new.clone()),
            Holder::Outsider => (self.count(new) >= OUTSIDERS_MAX).then(|| new.clone()),
        }?;
        let oldest = *self.held.iter().find(|(_, held)| held.holder == full)?.0;
        let held = self.held.remove(&oldest)?;
        held.end.notify_one();
        Some(held.holder)
    }

    /// Of which address one is too many, if there are too many.
    fn busiest_stranger(&self, new: &Holder) -> Option<Holder> {
        if self.count(new) >= STRANGERS_PER_ADDRESS_MAX {
            return Some(new.clone());
        }
        let mut counts: BTreeMap<&Holder, (usize, Reverse<u64>)> = BTreeMap::new();
        let strangers = self.held.iter().filter(|(_, held)| matches!(held.holder, Holder::Stranger(_)));
        for (number, held) in strangers {
            counts.entry(&held.holder).or_insert((0, Reverse(*number))).0 += 1;
        }
        if counts.values().map(|(count, _)| count).sum::<usize>() < STRANGERS_MAX {
            return None;
        }
        // Of those that have the same, the one that has had its place for the longest.
        counts.into_iter().max_by_key(|(_, held)| *held).map(|(holder, _)| holder.clone())
    }

    fn count(&self, holder: &Holder) -> usize {
        self.held.values().filter(|held| held.holder == *holder).count()
    }
}

impl Ticket {
    /// The handshake is done.
    pub(crate) fn admit(&mut self, group: &Arc<str>, id: u64, is_member: bool) {
        let holder = if is_member { Holder::Member(group.clone(), id) } else { Holder::Outsider };
        (self.number, self.end) = self.admission.take(holder, Some(self.number));
    }

    /// Waits until the place is given to another connection.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + use<> {
        let end = self.end.clone();
        async move { end.notified().await }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.admission.table.lock().held.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn is_ended(ticket: &Ticket) -> bool {
        ticket.ended().now_or_never().is_some()
    }

    fn admitted(admission: &Arc<Admission>, id: u64, is_member: bool) -> Ticket {
        let mut ticket = admission.arrive("10.0.0.9:1");
        ticket.admit(&"g".into(), id, is_member);
        ticket
    }

    /// A thousand connections took a thousand descriptors, for ever: the next segment of the log could not be made.
    #[test]
    fn peer_i8_a_flood_of_connections_took_descriptors_without_bound() {
        let admission = Arc::<Admission>::default();
        let flood: Vec<Ticket> =
            (0..1_000).map(|port| admission.arrive(&format!("10.0.0.7:{port}"))).collect();
        assert_eq!(admission.held(), STRANGERS_PER_ADDRESS_MAX);
        let alive = flood.iter().filter(|ticket| !is_ended(ticket)).count();
        assert_eq!(alive, STRANGERS_PER_ADDRESS_MAX);
        // A peer on another machine is not ended by it, nor by a flood from many addresses that is no larger.
        let peer = admission.arrive("10.0.0.2:1");
        let more: Vec<Ticket> =
            (0..1_000).map(|port| admission.arrive(&format!("10.0.0.7:{port}"))).collect();
        assert!(!is_ended(&peer));
        drop((flood, more));
        assert_eq!(admission.held(), 1);
    }

    #[test]
    fn peer_i8_a_flood_from_many_addresses_has_a_bound_too() {
        let admission = Arc::<Admission>::default();
        let flood: Vec<Ticket> = (0..1_000)
            .map(|number| admission.arrive(&format!("10.1.{}.{}:1", number / 250, number % 250)))
            .collect();
        assert_eq!(admission.held(), STRANGERS_MAX);
        // A peer whose address comes last in the order of letters was the next one to be ended.
        let peer = admission.arrive("99.0.0.2:1");
        let more: Vec<Ticket> =
            (1..STRANGERS_MAX).map(|number| admission.arrive(&format!("10.2.0.{number}:1"))).collect();
        assert!(!is_ended(&peer));
        drop((flood, more, peer));
        assert_eq!(admission.held(), 0);
    }

    #[test]
    fn a_member_is_never_locked_out_and_takes_no_other_members_places() {
        let admission = Arc::<Admission>::default();
        let other = admitted(&admission, 3, true);
        let outsiders: Vec<Ticket> = (100..300).map(|id| admitted(&admission, id, false)).collect();
        assert_eq!(outsiders.iter().filter(|ticket| !is_ended(ticket)).count(), OUTSIDERS_MAX);
        let mut own: Vec<Ticket> = (0..PER_MEMBER_MAX).map(|_| admitted(&admission, 2, true)).collect();
        assert!(own.iter().all(|ticket| !is_ended(ticket)));
        own.push(admitted(&admission, 2, true));
        assert!(is_ended(&own[0]) && !is_ended(&own[1]) && !is_ended(&own[PER_MEMBER_MAX]));
        assert!(!is_ended(&other));
        // For another group of the node it has places of its own.
        let mut of_other_group = admission.arrive("10.0.0.9:1");
        of_other_group.admit(&"h".into(), 2, true);
        assert!(!is_ended(&own[1]));
    }
}
