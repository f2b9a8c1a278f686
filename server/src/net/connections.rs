//! The open connections of a node, how many there may be, and who may come when there are no more.
//!
//! A connection beyond a limit is not dropped without a word: as a guest it may say one request, and is told by a response
//! why it is refused. There are few places for guests. Some of them only operators' connections may have (`admin.I2`), and what an
//! operator asks is served there, so that a node that others have filled can still be looked at and mended. If these are
//! taken too, the connection that has kept its place the longest without an operator's request makes room.
//!
//! - `net.I9`: an operator reaches the node however many connections clients hold.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use folio_raft::log_rate_limiter::LogRateLimiter;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::descriptors::Descriptors;
use super::{Channel, CloseReason, NetConfig};

/// A client that reads has seen what waits for it within this time, on however busy a machine.
const UNREAD_MIN: Duration = Duration::from_secs(1);
/// Connections beyond a limit that are told so at a time.
const GUESTS_MAX: usize = 16;
/// The same, only for operators' connections.
pub(super) const OPERATORS_MAX: usize = 8;

/// Why a connection is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TooMany {
    #[error("{0} connections are open, the limit is limits.connections")]
    Connections(usize),
    #[error("{0} connections are open from this address, the limit is limits.connections_per_address")]
    FromAddress(usize),
    #[error("too many files are open for one more connection, the limit is {0} (ulimit -n)")]
    Files(usize),
}

/// Whether a new connection is kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// As any other.
    Open,
    /// Until it has been told why not, or for what an operator asks.
    Guest(TooMany),
    /// There is no place to tell it anything.
    Refused,
}

/// All connections of a node.
#[derive(Debug)]
pub(super) struct Connections {
    table: Mutex<Table>,
    max: usize,
    per_address_max: usize,
    descriptors: Descriptors,
    refusals: LogRateLimiter,
}

#[derive(Debug, Default)]
struct Table {
    open: HashMap<u64, Channel>,
    addresses: HashMap<IpAddr, usize>,
    /// In the order they came.
    guests: BTreeMap<u64, Channel>,
}

impl Connections {
    pub(super) fn new(config: &NetConfig) -> Self {
        Self {
            table: Mutex::default(),
            max: config.connections_max,
            per_address_max: config.per_address_max(),
            descriptors: Descriptors::new(),
            refusals: LogRateLimiter::new(),
        }
    }

    /// Lists a new connection where it belongs.
    pub(super) fn admit(&self, channel: &Channel) -> Admission {
        let (admission, replaced) = {
            let mut table = self.table.lock();
            match self.too_many(&table, channel.remote()) {
                None => {
                    *table.addresses.entry(address(channel)).or_default() += 1;
                    table.open.insert(channel.id(), channel.clone());
                    (Admission::Open, None)
                }
                Some(why) => {
                    let (place, replaced) = table.guest(channel);
                    (if place { Admission::Guest(why) } else { Admission::Refused }, replaced)
                }
            }
        };
        if let Some(replaced) = replaced {
            replaced.close(CloseReason::Refused);
        }
        admission
    }

    fn too_many(&self, table: &Table, remote: SocketAddr) -> Option<TooMany> {
        let from_address = table.addresses.get(&remote.ip().to_canonical()).copied().unwrap_or(0);
        if table.open.len() >= self.max {
            Some(TooMany::Connections(self.max))
        } else if from_address >= self.per_address_max {
            Some(TooMany::FromAddress(self.per_address_max))
        } else if !self.descriptors.has_room() {
            Some(TooMany::Files(self.descriptors.limit()))
        } else {
            None
        }
    }

    /// Says in the log that a connection was refused, once a second at most.
    pub(super) fn tell_refused(&self, remote: SocketAddr, admission: &Admission) {
        let why = match admission {
            Admission::Open => return,
            Admission::Guest(why) => why.to_string(),
            Admission::Refused => "nor may it be told why: too many are being told".to_owned(),
        };
        if let Some(left_out) = self.refusals.admit() {
            tracing::warn!(%remote, left_out, "connection refused: {why}");
        }
    }

    pub(super) fn remove(&self, channel: &Channel) {
        let mut table = self.table.lock();
        table.guests.remove(&channel.id());
        if table.open.remove(&channel.id()).is_none() {
            return;
        }
        let address = address(channel);
        if let Some(count) = table.addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                table.addresses.remove(&address);
            }
        }
    }

    /// All of them, guests too.
    pub(super) fn all(&self) -> Vec<Channel> {
        let table = self.table.lock();
        table.open.values().chain(table.guests.values()).cloned().collect()
    }

    /// How many there are, guests too.
    pub(super) fn count(&self) -> usize {
        let table = self.table.lock();
        table.open.len() + table.guests.len()
    }

    /// Those that count against the limit, and the limit.
    pub(super) fn open(&self) -> (usize, usize) {
        (self.table.lock().open.len(), self.max)
    }

    /// Guests, and how many there may be.
    pub(super) fn guests(&self) -> (usize, usize) {
        (self.table.lock().guests.len(), GUESTS_MAX + OPERATORS_MAX)
    }

    /// Files that this process has open, and how many it may have.
    pub(super) fn files(&self) -> (usize, usize) {
        (self.descriptors.open(), self.descriptors.limit())
    }

    /// Too many bytes wait for all clients together (net.I3): clients are closed until the share covers what waits for this
    /// one. First those that do not read, the oldest unread bytes first: hundreds of them may have a little each, and the
    /// longest queue be an honest client's newest answer. Then, where all read, those with the longest queues: they asked for
    /// more than there is room for.
    pub(super) fn make_room_for(&self, channel: &Channel) {
        let now = Instant::now();
        let mut unread: Vec<_> = self
            .all()
            .into_iter()
            .filter_map(|other| {
                let since = other.unread_since()?;
                let reads = now.saturating_duration_since(since) < UNREAD_MIN;
                let first = if reads { now } else { since };
                Some(((reads, first, Reverse(other.queued()), since), other))
            })
            .collect();
        unread.sort_by_key(|(rank, _)| *rank);
        let mut unread = unread.into_iter().map(|(_, other)| other);
        while channel.is_open() && !channel.is_unread_covered() {
            let oldest = unread.next().unwrap_or_else(|| channel.clone());
            oldest.close(CloseReason::Unread { queued: oldest.queued() });
        }
    }
}

impl Table {
    /// Whether there is a place for one more guest, and who has to leave it.
    fn guest(&mut self, channel: &Channel) -> (bool, Option<Channel>) {
        let mut replaced = None;
        if self.guests.len() >= GUESTS_MAX {
            if !channel.is_operator() {
                return (false, None);
            }
            if self.guests.len() >= GUESTS_MAX + OPERATORS_MAX {
                let silent = self.guests.values().find(|guest| guest.is_operator() && guest.has_answered());
                let Some(silent) = silent.cloned() else { return (false, None) };
                self.guests.remove(&silent.id());
                replaced = Some(silent);
            }
        }
        self.guests.insert(channel.id(), channel.clone());
        (true, replaced)
    }
}

fn address(channel: &Channel) -> IpAddr {
    channel.remote().ip().to_canonical()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use folio_protocol::frame::Frame;

    use super::super::Resources;
    use super::*;

    struct Node(NetConfig, Arc<Resources>);

    fn node(connections_max: usize, per_address_max: Option<usize>) -> Node {
        let config = NetConfig {
            connections_max,
            connections_per_address_max: per_address_max,
            ..NetConfig::with_memory(64 << 20)
        };
        let resources = Resources::new(&config);
        Node(config, resources)
    }

    impl Node {
        fn comes(&self, from: &str) -> (Channel, Admission) {
            let remote = SocketAddr::new(from.parse().expect("an address"), 1);
            let Node(config, resources) = self;
            let is_operator = remote.ip().is_loopback();
            let channel = Channel::new(remote, is_operator, config, resources.budget(), resources.clone());
            let admission = self.1.connections().admit(&channel);
            (channel, admission)
        }

        fn come(&self, from: &str, count: usize) -> Vec<Channel> {
            (0..count).map(|_| self.comes(from).0).collect()
        }
    }

    #[test]
    fn one_address_takes_no_more_than_its_part_and_gets_it_back() {
        let node = node(10, None);
        let few = node.come("10.0.0.1", 5);
        assert_eq!(node.comes("10.0.0.1").1, Admission::Guest(TooMany::FromAddress(5)));
        assert_eq!(node.comes("::ffff:10.0.0.1").1, Admission::Guest(TooMany::FromAddress(5)));
        let (_, other) = node.comes("10.0.0.2");
        assert_eq!(other, Admission::Open);
        node.1.connections().remove(&few[0]);
        node.1.connections().remove(&few[0]);
        assert_eq!(node.comes("10.0.0.1").1, Admission::Open);
        assert_eq!(node.comes("10.0.0.1").1, Admission::Guest(TooMany::FromAddress(5)));
    }

    #[test]
    fn i9_places_for_operators_are_left_when_all_others_are_taken() {
        let node = node(10, Some(10));
        let _all = node.come("10.0.0.1", 10 + GUESTS_MAX);
        assert_eq!(node.comes("10.0.0.2").1, Admission::Refused);
        let (_, operator) = node.comes("127.0.0.1");
        assert_eq!(operator, Admission::Guest(TooMany::Connections(10)));
        assert_eq!(node.1.connections().count(), 10 + GUESTS_MAX + 1);
    }

    #[test]
    fn i9_silent_connections_of_operators_do_not_keep_an_operator_out() {
        let node = node(10, Some(10));
        let _all = node.come("10.0.0.1", 10 + GUESTS_MAX);
        let silent = node.come("127.0.0.1", OPERATORS_MAX);
        let asked = silent[0].expect_answer(&Frame::default());
        assert_eq!(node.comes("127.0.0.1").1, Admission::Guest(TooMany::Connections(10)));
        assert!(silent[0].is_open(), "what it asked is under way");
        assert!(!silent[1].is_open(), "the next one made room");
        drop(asked);
    }

    /// The longest queue was closed: an honest client's, beside hundreds that kept a little unread for ever.
    #[tokio::test(start_paused = true)]
    async fn i3_the_client_with_the_oldest_unread_bytes_is_closed_when_no_memory_is_left() {
        let node = node(1_000, Some(1_000));
        let clients = node.come("10.0.0.1", 200);
        let answer = |bytes: usize| Frame::default().with_body(vec![0; bytes]);
        for client in &clients {
            client.push(&answer(17 << 10)).expect("a frame");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(UNREAD_MIN).await;
        let honest = node.comes("10.0.0.2").0;
        honest.push(&answer(3 << 20)).expect("a frame");
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(honest.is_open());
        let closed = clients.iter().filter(|client| !client.is_open()).count();
        assert!((1..=60).contains(&closed), "{closed}: each had 64 KiB");
        assert!(clients[closed..].iter().all(Channel::is_open), "the oldest ones");
        let reason = clients[0].take_reason().expect("a reason").to_string();
        assert!(reason.contains("longer or more") && reason.contains("limits.memory"), "{reason}");
    }

    /// Found by `folio-jepsen hostile`: the good client had 90 kB that it had not read for some milliseconds.
    #[tokio::test(start_paused = true)]
    async fn i3_where_all_read_the_one_that_asks_for_the_most_is_closed() {
        let node = node(10, Some(10));
        let (honest, greedy) = (node.comes("10.0.0.1").0, node.comes("10.0.0.2").0);
        let answer = |bytes: usize| Frame::default().with_body(vec![0; bytes]);
        honest.push(&answer(90_000)).expect("a frame");
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            greedy.push(&answer(4 << 20)).expect("a frame");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(honest.is_open() && !greedy.is_open());
    }

    /// The scan ran under the table's lock on the thread that pushed, which may be the group's.
    #[tokio::test(start_paused = true)]
    async fn i3_nobody_is_closed_on_the_thread_of_the_one_that_pushes() {
        let node = node(10, Some(10));
        let clients = node.come("10.0.0.1", 4);
        let answer = Frame::default().with_body(vec![0; 3 << 20]);
        clients.iter().for_each(|client| client.push(&answer).expect("a frame"));
        assert!(clients.iter().all(Channel::is_open), "not here and now");
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(clients.iter().filter(|client| !client.is_open()).count(), 1);
    }
}
