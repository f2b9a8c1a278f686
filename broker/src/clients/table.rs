//! The table of registrations and the views derived from it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use folio_protocol::body::{HeartbeatData, SubscriptionData};
use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::duplicates::{Duplicate, Owners};
use super::feed::{self, Feed};
use super::full::Full;
use super::limits::{CONNECTION_BYTES_MAX, TABLE_BYTES_MAX};
use super::local::{Beat, Ended, Local};
use super::members::{Members, Place};
use super::registered::{Said, Timed};
use super::share::{Addresses, Heard, Outgoing, PART_BYTES_MAX, Part, Progress};
use super::view::GroupView;
use super::{ClientInfo, Consumer, Producer, SHARE_EXPIRES_AFTER};
use crate::connection::Connection;

/// All registrations this node knows of.
pub struct ClientTable {
    addresses: Addresses,
    /// Tells this process from an earlier one of the same node.
    process: u64,
    /// Passes that were begun, see [`super::share`].
    passes: AtomicU64,
    state: RwLock<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Registrations at this node, by channel.
    local: HashMap<u64, Local>,
    /// Their changes.
    feed: Feed,
    owners: Owners,
    /// What peers said, by node.
    shares: BTreeMap<u64, Heard>,
    /// The consumers of each group, here and at peers that are heard of.
    members: Members,
}

/// What a heartbeat changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    /// Whether some group now has other members or subscriptions, or a subscription is missing.
    pub sub_changed: bool,
    /// Who has to be told.
    pub notices: Vec<Notice>,
    /// The client itself, of the groups that it has just joined. It rebalances by itself after its first heartbeats; a notice in
    /// the middle of them has it look before all nodes know it, and then not again for a while.
    pub later: Vec<Notice>,
    /// Other processes found under the client's id.
    pub duplicates: Vec<Duplicate>,
}

/// What a client's program is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Software {
    /// Its language, RocketMQ's name.
    pub language: &'static str,
    /// Its wire version.
    pub version: i32,
}

/// Where a producer is.
#[derive(Clone)]
pub(crate) enum ProducerPlace {
    /// At this node.
    Here(Arc<dyn Connection>),
    /// At another one.
    Node(u64),
}

/// A connection of this node to be told that a group changed.
pub(crate) struct Notice {
    group: String,
    channel: Arc<dyn Connection>,
}

impl Notice {
    /// Tells the members.
    pub(crate) fn tell(notices: Vec<Notice>) {
        notices.iter().for_each(|notice| notice.channel.group_changed(&notice.group));
    }

    /// Whether the member is still there.
    pub(crate) fn is_open(&self) -> bool {
        self.channel.is_open()
    }
}

impl fmt::Debug for Notice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} to {}", self.group, self.channel.id())
    }
}

impl PartialEq for Notice {
    fn eq(&self, other: &Self) -> bool {
        self.group == other.group && self.channel.id() == other.channel.id()
    }
}

impl Eq for Notice {}

impl ClientTable {
    /// An empty table of a node reached at `addresses`.
    pub(crate) fn new(addresses: Addresses) -> Self {
        let process = RandomState::new().hash_one(std::process::id());
        let (state, changed) = (RwLock::default(), Notify::new());
        Self { addresses, process, passes: AtomicU64::new(0), state, changed }
    }

    /// Registers what a client says of itself, all of it or nothing.
    pub(crate) fn heartbeat(
        &self,
        channel: &(impl Connection + Clone),
        software: Software,
        data: HeartbeatData,
    ) -> Result<Heartbeat, Full> {
        let client = ClientInfo {
            client_id: data.client_id.clone(),
            address: channel.remote().to_string(),
            language: software.language.to_owned(),
            version: software.version,
        };
        let mut guard = self.state.write();
        let state = &mut *guard;
        let beat = match state.local.get(&channel.id()) {
            Some(local) => local.hear(&client, data),
            None => Local::new(Arc::new(channel.clone())).hear(&client, data),
        };
        let growth = beat.growth();
        if growth > 0 {
            let own = state.local.get(&channel.id()).map_or(0, Local::bytes);
            let all = state.feed.bytes();
            for (bytes, limit, by) in
                [(own, CONNECTION_BYTES_MAX, "connection"), (all, TABLE_BYTES_MAX, "node")]
            {
                if bytes.saturating_add_signed(growth) > limit {
                    return Err(Full { bytes, limit, by });
                }
            }
        }
        let (before, missing) = (state.feed.revision(), beat.missing);
        let Registered { joined, duplicates } = state.register(channel, beat);
        // A channel that closed before its heartbeat was served must not stay (clients.I1).
        if !channel.is_open() {
            state.remove(channel.id());
        }
        let news = state.feed.revision() != before;
        let all = state.notices();
        drop(guard);
        if news {
            self.changed.notify_one();
        }
        let sub_changed = missing || !all.is_empty();
        let newcomer =
            |notice: &Notice| notice.channel.id() == channel.id() && joined.contains(&notice.group);
        let (later, notices) = all.into_iter().partition(newcomer);
        Ok(Heartbeat { sub_changed, notices, later, duplicates })
    }

    /// Takes a client out of a producer and a consumer group.
    #[must_use]
    pub(crate) fn unregister(
        &self,
        channel: u64,
        client_id: &str,
        producer_group: Option<&str>,
        consumer_group: Option<&str>,
    ) -> Vec<Notice> {
        let key = |group: &str| (group.to_owned(), client_id.to_owned());
        self.change(|state| {
            let Some(local) = state.local.get_mut(&channel) else { return };
            let ended = local.leave(producer_group.map(key), consumer_group.map(key));
            state.end(channel, ended);
        })
    }

    /// Forgets everything registered over a connection that is gone.
    #[must_use]
    pub(crate) fn closed(&self, channel: u64) -> Vec<Notice> {
        if !self.state.read().local.contains_key(&channel) {
            return Vec::new();
        }
        self.change(|state| state.remove(channel))
    }

    /// Forgets who was not heard of for too long.
    #[must_use]
    pub(crate) fn expire(&self) -> Vec<Notice> {
        let now = Instant::now();
        self.change(|state| {
            let ended: Vec<(u64, Ended)> =
                state.local.iter_mut().map(|(channel, local)| (*channel, local.expire(now))).collect();
            for (channel, ended) in ended {
                state.end(channel, ended);
            }
            for (node, heard) in state.shares.iter_mut().filter(|(_, heard)| !heard.expired) {
                if now.duration_since(heard.at) > SHARE_EXPIRES_AFTER {
                    heard.expired = true;
                    for (id, consumer) in &heard.consumers {
                        state.members.remove(Place::Node(*node, *id), &consumer.data.group_name);
                    }
                }
            }
        })
    }

    /// Takes over what a peer says of its clients; what it is answered.
    #[must_use]
    pub(crate) fn heard(&self, node: u64, bytes: &[u8]) -> (Vec<Notice>, Bytes) {
        let part: Part<Consumer, Producer> = match serde_json::from_slice(bytes) {
            Ok(part) => part,
            Err(error) => {
                tracing::error!(node, "a peer's client table does not decode: {error}");
                return (Vec::new(), Progress::default().encode());
            }
        };
        let mut guard = self.state.write();
        let state = &mut *guard;
        let heard = state.shares.entry(node).or_insert_with(Heard::new);
        let news = heard.take(part);
        let progress = heard.progress;
        if std::mem::take(&mut heard.expired) {
            for (id, consumer) in &heard.consumers {
                state.members.insert(Place::Node(node, *id), consumer.clone());
            }
        } else {
            for (id, consumer) in news.left {
                state.members.remove(Place::Node(node, id), &consumer.data.group_name);
            }
            for (id, consumer) in news.came {
                state.members.insert(Place::Node(node, id), consumer);
            }
        }
        (state.notices(), progress.encode())
    }

    /// How many changes this node's part has seen.
    pub(crate) fn revision(&self) -> u64 {
        self.state.read().feed.revision()
    }

    /// What a peer is told next that has heard so much, or nothing.
    pub(crate) fn part(&self, heard: Option<Progress>) -> Outgoing {
        let state = self.state.read();
        let heard = heard.filter(|heard| heard.revision.max(heard.begun) >= state.feed.forgotten());
        let (pass, base, begun) = match heard {
            Some(heard) => (heard.pass, heard.revision, heard.begun),
            None => (self.passes.fetch_add(1, Ordering::Relaxed) + 1, 0, state.feed.revision()),
        };
        let (changes, upto) = state.feed.after(base, PART_BYTES_MAX);
        let complete = upto == state.feed.revision();
        drop(state);
        let then = Progress { process: self.process, pass, revision: upto, begun };
        Outgoing::new(then, base, complete, self.addresses.clone(), &changes)
    }

    /// Returns when this node's part changed since the last call.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Where clients reach a peer, if it ever said so.
    pub(crate) fn addresses_of(&self, node: u64) -> Option<Addresses> {
        let state = self.state.read();
        let heard = state.shares.get(&node).filter(|heard| heard.has_begun());
        heard.map(|heard| heard.addresses.clone())
    }

    /// A consumer group as all nodes together see it.
    pub fn group(&self, group: &str) -> Option<GroupView> {
        let view = GroupView::of(self.state.read().members.of(group));
        (!view.members.is_empty()).then_some(view)
    }

    /// The client ids of a group's members, sorted.
    pub fn members(&self, group: &str) -> Vec<String> {
        self.state.read().members.clients(group).cloned().collect()
    }

    /// What a group wants of a topic, for pulls that do not say it themselves.
    pub(crate) fn subscription(&self, group: &str, topic: &str) -> Option<Arc<SubscriptionData>> {
        self.state.read().members.subscription(group, topic).cloned()
    }

    /// The groups that subscribe to a topic.
    pub(crate) fn groups_of(&self, topic: &str) -> BTreeSet<String> {
        self.state.read().members.groups_of(topic).cloned().collect()
    }

    /// The producers of a group on all nodes.
    pub fn producers(&self, group: &str) -> Vec<ClientInfo> {
        let state = self.state.read();
        let local = state.local.values().flat_map(|local| local.producers.values()).map(|timed| &timed.what);
        let heard = state.shares.values().filter(|heard| !heard.expired);
        let all = local.chain(heard.flat_map(|heard| heard.producers.values()));
        let of_group = all.filter(|producer| producer.group == group);
        let by_id: BTreeMap<_, _> =
            of_group.map(|producer| (&producer.client.client_id, &producer.client)).collect();
        by_id.into_values().cloned().collect()
    }

    /// Where the producers of these groups are: each registration once.
    pub(crate) fn producer_places(&self, groups: &HashSet<&str>) -> HashMap<String, Vec<ProducerPlace>> {
        let state = self.state.read();
        let mut places: HashMap<String, Vec<ProducerPlace>> = HashMap::new();
        let mut add = |group: &str, place: ProducerPlace| match places.get_mut(group) {
            Some(known) => known.push(place),
            None => drop(places.insert(group.to_owned(), vec![place])),
        };
        for local in state.local.values() {
            let wanted = local.producers.keys().filter(|(group, _)| groups.contains(group.as_str()));
            wanted.for_each(|(group, _)| add(group, ProducerPlace::Here(local.channel.clone())));
        }
        for (node, heard) in state.shares.iter().filter(|(_, heard)| !heard.expired) {
            let wanted = heard.producers.values().filter(|of| groups.contains(of.group.as_str()));
            wanted.for_each(|producer| add(&producer.group, ProducerPlace::Node(*node)));
        }
        places
    }

    /// The connections of this node that have producers of a group; `turn` says which is the first.
    pub(crate) fn producers_here(&self, group: &str, turn: usize) -> Vec<Arc<dyn Connection>> {
        let state = self.state.read();
        let has = |local: &&Local| local.producers.keys().any(|(of, _)| of == group);
        let mut here: Vec<(u64, Arc<dyn Connection>)> = state
            .local
            .values()
            .filter(has)
            .map(|local| (local.channel.id(), local.channel.clone()))
            .collect();
        here.sort_unstable_by_key(|(id, _)| *id);
        let first = turn.checked_rem(here.len()).unwrap_or(0);
        here.rotate_left(first);
        here.into_iter().map(|(_, connection)| connection).collect()
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> Vec<Notice> {
        let mut state = self.state.write();
        let before = state.feed.revision();
        change(&mut state);
        let news = state.feed.revision() != before;
        let notices = state.notices();
        drop(state);
        if news {
            self.changed.notify_one();
        }
        notices
    }
}

/// What a heartbeat registered.
#[derive(Default)]
struct Registered {
    /// The groups that its client was not in.
    joined: BTreeSet<String>,
    duplicates: Vec<Duplicate>,
}

impl State {
    fn register(&mut self, channel: &(impl Connection + Clone), beat: Beat) -> Registered {
        let local = self.local.entry(channel.id()).or_insert_with(|| Local::new(Arc::new(channel.clone())));
        let (mut registered, heard) = (Registered::default(), Instant::now());
        for Said { key, what, bytes, .. } in beat.consumers {
            let known = local.consumers.get(&key);
            if known.is_none() {
                registered.joined.insert(key.0.clone());
            }
            registered.duplicates.extend(self.owners.heard(&key, channel));
            let number = match known {
                Some(known) if known.says(&what) => known.number,
                _ => {
                    let before = known.map(|known| known.number);
                    let number = self.feed.tell(before, feed::Said::Consumer(what.clone()), bytes);
                    self.members.insert(Place::Channel(channel.id(), number.id), what.clone());
                    number
                }
            };
            local.keep_consumer(key, Timed { what, heard, bytes, number });
        }
        for Said { key, what, bytes, .. } in beat.producers {
            let known = local.producers.get(&key);
            let number = match known {
                Some(known) if known.says(&what) => known.number,
                _ => {
                    let before = known.map(|known| known.number);
                    self.feed.tell(before, feed::Said::Producer(what.clone()), bytes)
                }
            };
            local.keep_producer(key, Timed { what, heard, bytes, number });
        }
        registered
    }

    /// Forgets a connection.
    fn remove(&mut self, channel: u64) {
        if let Some(local) = self.local.remove(&channel) {
            self.end(channel, local.end());
        }
    }

    /// Registrations of a connection have ended.
    fn end(&mut self, channel: u64, ended: Ended) {
        for (key, timed) in ended.consumers {
            self.owners.gone(&key, channel);
            self.feed.end(timed.number);
            self.members.remove(Place::Channel(channel, timed.number.id), &key.0);
        }
        ended.producers.into_iter().for_each(|timed| self.feed.end(timed.number));
    }

    /// Whom to tell of what has changed: each connection of this node that is in a group that did.
    fn notices(&mut self) -> Vec<Notice> {
        let mut notices = Vec::new();
        for (group, channels) in self.members.changed() {
            let local = channels.iter().filter_map(|channel| self.local.get(channel));
            notices
                .extend(local.map(|local| Notice { group: group.clone(), channel: local.channel.clone() }));
        }
        notices
    }
}

#[cfg(test)]
mod tests;
