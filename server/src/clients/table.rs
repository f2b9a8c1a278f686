//! The table of registrations and the views derived from it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use folio_protocol::body::{HeartbeatData, SubscriptionData};
use folio_protocol::frame::Frame;
use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::duplicates::{Duplicate, Key, Owners};
use super::limits::TABLE_BYTES_MAX;
use super::registered::{Said, Timed};
use super::share::{Addresses, Share};
use super::view::GroupView;
use super::{CLIENT_EXPIRES_AFTER, ClientInfo, Consumer, Producer, SHARE_EXPIRES_AFTER};
use crate::net::Channel;

/// All registrations this node knows of.
pub struct ClientTable {
    addresses: Addresses,
    /// Tells this process from an earlier one of the same node.
    process: u64,
    state: RwLock<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Registrations at this node, by channel.
    local: HashMap<u64, Local>,
    /// Counts their changes.
    revision: u64,
    owners: Owners,
    /// What peers said, by node.
    shares: BTreeMap<u64, Heard>,
    /// Derived: consumer groups over all nodes.
    groups: HashMap<String, GroupView>,
}

struct Local {
    channel: Channel,
    consumers: BTreeMap<Key, Timed<Consumer>>,
    producers: BTreeMap<Key, Timed<Producer>>,
}

/// A client that would make this node's part larger than it may be (`clients.I4`).
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "[CLIENTS]clients of this node have registered {bytes} bytes, the limit is {TABLE_BYTES_MAX}: connect to another node"
)]
pub struct Full {
    /// What is registered.
    pub bytes: usize,
}

struct Heard {
    share: Share,
    at: Instant,
    /// The addresses of a silent node stay known, its clients do not.
    expired: bool,
}

/// What a heartbeat changed.
#[derive(Debug, PartialEq, Eq)]
pub struct Heartbeat {
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

/// A channel of this node to be told that a group changed.
#[derive(Debug)]
pub struct Notice {
    /// The group.
    pub group: String,
    /// A member's connection.
    pub channel: Channel,
}

impl PartialEq for Notice {
    fn eq(&self, other: &Self) -> bool {
        self.group == other.group && self.channel.id() == other.channel.id()
    }
}

impl Eq for Notice {}

impl ClientTable {
    /// An empty table of a node reached at `addresses`.
    pub fn new(addresses: Addresses) -> Self {
        let process = RandomState::new().hash_one(std::process::id());
        Self { addresses, process, state: RwLock::default(), changed: Notify::new() }
    }

    /// Registers what a client says of itself, all of it or nothing.
    pub fn heartbeat(
        &self,
        channel: &Channel,
        frame: &Frame,
        data: HeartbeatData,
    ) -> Result<Heartbeat, Full> {
        let client = ClientInfo {
            client_id: data.client_id.clone(),
            address: channel.remote().to_string(),
            language: frame.language.name().to_owned(),
            version: frame.version,
        };
        let now = Instant::now();
        let mut guard = self.state.write();
        let state = &mut *guard;
        let beat = match state.local.get(&channel.id()) {
            Some(local) => local.hear(&client, data, now),
            None => Local::new(channel.clone()).hear(&client, data, now),
        };
        let growth = beat.growth();
        if growth > 0 {
            let bytes = state.bytes();
            if bytes.saturating_add_signed(growth) > TABLE_BYTES_MAX {
                return Err(Full { bytes });
            }
        }
        let local = state.local.entry(channel.id()).or_insert_with(|| Local::new(channel.clone()));
        let (mut touched, mut joined, mut duplicates) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        let (missing, mut news) = (beat.missing, false);
        for Said { key, timed, is_new, .. } in beat.consumers {
            if !local.consumers.contains_key(&key) {
                joined.insert(key.0.clone());
            }
            touched.insert(key.0.clone());
            duplicates.extend(state.owners.heard(&key, channel));
            news |= is_new;
            local.consumers.insert(key, timed);
        }
        for Said { key, timed, is_new, .. } in beat.producers {
            news |= is_new;
            local.producers.insert(key, timed);
        }
        // A channel that closed before its heartbeat was served must not stay (clients.I1).
        if !channel.is_open() {
            state.remove(channel.id());
        }
        let all = if news { state.rebuild(touched) } else { Vec::new() };
        state.revision += u64::from(news);
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
    pub fn unregister(
        &self,
        channel: u64,
        client_id: &str,
        producer_group: Option<&str>,
        consumer_group: Option<&str>,
    ) -> Vec<Notice> {
        let key = |group: &str| (group.to_owned(), client_id.to_owned());
        self.change(|state| {
            let local = state.local.get_mut(&channel)?;
            let produced = producer_group.and_then(|group| local.producers.remove(&key(group)));
            let left = consumer_group.filter(|group| local.consumers.remove(&key(group)).is_some());
            if let Some(group) = left {
                state.owners.gone(&key(group), channel);
            }
            let touched = left.map(str::to_owned).into_iter().collect();
            (produced.is_some() || left.is_some()).then_some(touched)
        })
    }

    /// Forgets everything registered over a connection that is gone.
    #[must_use]
    pub fn closed(&self, channel: u64) -> Vec<Notice> {
        if !self.state.read().local.contains_key(&channel) {
            return Vec::new();
        }
        self.change(|state| Some(state.remove(channel)))
    }

    /// Forgets who was not heard of for too long.
    #[must_use]
    pub fn expire(&self) -> Vec<Notice> {
        let now = Instant::now();
        self.change(|state| {
            let mut touched = BTreeSet::new();
            for (channel, local) in &mut state.local {
                for key in local.expire(now) {
                    state.owners.gone(&key, *channel);
                    touched.insert(key.0);
                }
            }
            for heard in state.shares.values_mut().filter(|heard| !heard.expired) {
                if now.duration_since(heard.at) > SHARE_EXPIRES_AFTER {
                    heard.expired = true;
                    touched.extend(groups_of(&heard.share));
                }
            }
            (!touched.is_empty()).then_some(touched)
        })
    }

    /// Takes over what a peer says of its clients.
    #[must_use]
    pub fn heard(&self, node: u64, bytes: &[u8]) -> Vec<Notice> {
        let share: Share = match serde_json::from_slice(bytes) {
            Ok(share) => share,
            Err(error) => {
                tracing::error!(node, "a peer's client table does not decode: {error}");
                return Vec::new();
            }
        };
        let mut state = self.state.write();
        let mut touched = BTreeSet::new();
        if let Some(before) = state.shares.get_mut(&node) {
            let overtaken = before.share.process == share.process && before.share.revision > share.revision;
            if (before.share == share && !before.expired) || overtaken {
                before.at = Instant::now();
                return Vec::new();
            }
            touched = groups_of(&before.share);
        }
        touched.extend(groups_of(&share));
        state.shares.insert(node, Heard { share, at: Instant::now(), expired: false });
        state.rebuild(touched)
    }

    /// How many changes this node's part has seen.
    pub fn revision(&self) -> u64 {
        self.state.read().revision
    }

    /// This node's part of the table, to be told to its peers, and its revision.
    pub fn share(&self) -> (u64, Bytes) {
        let state = self.state.read();
        let locals = || state.local.values();
        let revision = state.revision;
        let share = Share {
            process: self.process,
            revision,
            addresses: self.addresses.clone(),
            consumers: locals()
                .flat_map(|local| local.consumers.values())
                .map(|timed| timed.what.clone())
                .collect(),
            producers: locals()
                .flat_map(|local| local.producers.values())
                .map(|timed| timed.what.clone())
                .collect(),
        };
        drop(state);
        match serde_json::to_vec(&share) {
            Ok(bytes) => (revision, bytes.into()),
            Err(error) => {
                tracing::error!("the client table does not encode: {error}");
                (revision, Bytes::new())
            }
        }
    }

    /// Returns when this node's part changed since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Where clients reach a peer, if it ever said so.
    pub fn addresses_of(&self, node: u64) -> Option<Addresses> {
        self.state.read().shares.get(&node).map(|heard| heard.share.addresses.clone())
    }

    /// A consumer group as all nodes together see it.
    pub fn group(&self, group: &str) -> Option<GroupView> {
        self.state.read().groups.get(group).cloned()
    }

    /// The client ids of a group's members, sorted.
    pub fn members(&self, group: &str) -> Vec<String> {
        let state = self.state.read();
        state.groups.get(group).map(|view| view.members.keys().cloned().collect()).unwrap_or_default()
    }

    /// What a group wants of a topic, for pulls that do not say it themselves.
    pub fn subscription(&self, group: &str, topic: &str) -> Option<Arc<SubscriptionData>> {
        self.state.read().groups.get(group)?.subscriptions.get(topic).cloned()
    }

    /// The producers of a group on all nodes.
    pub fn producers(&self, group: &str) -> Vec<ClientInfo> {
        let state = self.state.read();
        let local = state.local.values().flat_map(|local| local.producers.values()).map(|timed| &timed.what);
        let heard = state.shares.values().filter(|heard| !heard.expired);
        let all = local.chain(heard.flat_map(|heard| &heard.share.producers));
        let of_group = all.filter(|producer| producer.group == group);
        let by_id: BTreeMap<_, _> =
            of_group.map(|producer| (&producer.client.client_id, &producer.client)).collect();
        by_id.into_values().cloned().collect()
    }

    /// A connection of this node to a member of a producer group.
    pub fn producer_channel(&self, group: &str) -> Option<Channel> {
        let state = self.state.read();
        let mut locals = state.local.values();
        let found = locals.find(|local| local.producers.values().any(|timed| timed.what.group == group))?;
        Some(found.channel.clone())
    }

    /// `change` gives the groups that it touched; `None` if it changed nothing.
    fn change(&self, change: impl FnOnce(&mut State) -> Option<BTreeSet<String>>) -> Vec<Notice> {
        let mut state = self.state.write();
        let Some(touched) = change(&mut state) else { return Vec::new() };
        state.revision += 1;
        let notices = state.rebuild(touched);
        drop(state);
        self.changed.notify_one();
        notices
    }
}

impl State {
    /// Forgets a connection. Returns the groups that it was in.
    fn remove(&mut self, channel: u64) -> BTreeSet<String> {
        let Some(local) = self.local.remove(&channel) else { return BTreeSet::new() };
        local.consumers.keys().for_each(|key| self.owners.gone(key, channel));
        local.groups()
    }

    /// Derives the views of these groups again; says whom to tell.
    fn rebuild(&mut self, touched: BTreeSet<String>) -> Vec<Notice> {
        let mut notices = Vec::new();
        let views = self.views_of(&touched);
        for (group, view) in touched.into_iter().zip(views) {
            let before = self.groups.get(&group);
            let differs = before.map_or(!view.members.is_empty(), |before| view.differs(before));
            if view.members.is_empty() {
                self.groups.remove(&group);
            } else {
                self.groups.insert(group.clone(), view);
            }
            if differs {
                let members = self.local.values().filter(|local| local.consumes(&group));
                notices.extend(
                    members.map(|local| Notice { group: group.clone(), channel: local.channel.clone() }),
                );
            }
        }
        notices
    }

    /// The views of these groups as they are now, in their order. Looks at each registration once, however many groups
    /// there are.
    fn views_of(&self, groups: &BTreeSet<String>) -> Vec<GroupView> {
        let mut places = HashMap::with_capacity(groups.len());
        places.extend(groups.iter().enumerate().map(|(at, group)| (group.as_str(), at)));
        let mut consumers: Vec<Vec<&Consumer>> = vec![Vec::new(); groups.len()];
        let heard = self.shares.values().filter(|heard| !heard.expired);
        let heard = heard.flat_map(|heard| &heard.share.consumers);
        let local = self.local.values().flat_map(|local| local.consumers.values()).map(|timed| &timed.what);
        for consumer in heard.chain(local) {
            if let Some(at) = places.get(consumer.data.group_name.as_str()) {
                consumers[*at].push(consumer);
            }
        }
        consumers.into_iter().map(|consumers| GroupView::of(consumers.into_iter())).collect()
    }

    /// What is registered at this node, as it is told to the others.
    fn bytes(&self) -> usize {
        self.local.values().map(Local::bytes).sum()
    }
}

/// A heartbeat that is not registered yet.
#[derive(Default)]
struct Beat {
    consumers: Vec<Said<Consumer>>,
    producers: Vec<Said<Producer>>,
    /// Whether subscriptions that were left out are not known.
    missing: bool,
}

impl Beat {
    /// Bytes by which the table grows with it.
    fn growth(&self) -> isize {
        let consumers: isize = self.consumers.iter().map(|said| said.growth).sum();
        consumers + self.producers.iter().map(|said| said.growth).sum::<isize>()
    }
}

impl Local {
    fn new(channel: Channel) -> Self {
        Self { channel, consumers: BTreeMap::new(), producers: BTreeMap::new() }
    }

    /// What a heartbeat says, with the subscriptions that it leaves out where they are known.
    fn hear(&self, client: &ClientInfo, data: HeartbeatData, now: Instant) -> Beat {
        let mut beat = Beat::default();
        for mut consumer in data.consumer_data_set {
            let key = (consumer.group_name.clone(), client.client_id.clone());
            if data.without_sub {
                match self.consumers.get(&key) {
                    Some(known) => {
                        consumer.subscription_data_set = known.what.data.subscription_data_set.clone();
                    }
                    None => beat.missing = true,
                }
            }
            let consumer = Consumer { client: client.clone(), data: consumer };
            beat.consumers.push(Said::of(&self.consumers, key, consumer, now));
        }
        for producer in data.producer_data_set {
            let key = (producer.group_name.clone(), client.client_id.clone());
            let producer = Producer { client: client.clone(), group: producer.group_name };
            beat.producers.push(Said::of(&self.producers, key, producer, now));
        }
        beat
    }

    fn bytes(&self) -> usize {
        let consumers: usize = self.consumers.values().map(|timed| timed.bytes).sum();
        consumers + self.producers.values().map(|timed| timed.bytes).sum::<usize>()
    }

    /// Forgets who was not heard of for too long. Returns the consumers among them.
    fn expire(&mut self, now: Instant) -> Vec<(String, String)> {
        let alive = |heard: Instant| now.duration_since(heard) <= CLIENT_EXPIRES_AFTER;
        self.producers.retain(|_, timed| alive(timed.heard));
        let silent = self.consumers.iter().filter(|(_, timed)| !alive(timed.heard));
        let silent: Vec<_> = silent.map(|(key, _)| key.clone()).collect();
        silent.iter().for_each(|key| drop(self.consumers.remove(key)));
        silent
    }

    fn consumes(&self, group: &str) -> bool {
        let from = (group.to_owned(), String::new());
        self.consumers.range(from..).next().is_some_and(|((consumed, _), _)| consumed == group)
    }

    fn groups(&self) -> BTreeSet<String> {
        self.consumers.keys().map(|(group, _)| group.clone()).collect()
    }
}

fn groups_of(share: &Share) -> BTreeSet<String> {
    share.consumers.iter().map(|consumer| consumer.data.group_name.clone()).collect()
}

#[cfg(test)]
mod tests;
