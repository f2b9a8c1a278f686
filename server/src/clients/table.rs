//! The table of registrations and the views derived from it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use folio_protocol::body::{ConsumerData, HeartbeatData, SubscriptionData};
use folio_protocol::frame::Frame;
use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::share::{Addresses, Share};
use super::view::GroupView;
use super::{CLIENT_EXPIRES_AFTER, ClientInfo, Consumer, Producer, SHARE_EXPIRES_AFTER};
use crate::net::Channel;

/// All registrations this node knows of.
pub struct ClientTable {
    addresses: Addresses,
    state: RwLock<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Registrations at this node, by channel.
    local: HashMap<u64, Local>,
    /// What peers said, by node.
    shares: BTreeMap<u64, Heard>,
    /// Derived: consumer groups over all nodes.
    groups: HashMap<String, GroupView>,
}

struct Local {
    channel: Channel,
    /// By (group, client id).
    consumers: BTreeMap<(String, String), Timed<Consumer>>,
    producers: BTreeMap<(String, String), Timed<Producer>>,
}

struct Timed<T> {
    what: T,
    heard: Instant,
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
        Self { addresses, state: RwLock::default(), changed: Notify::new() }
    }

    /// Registers what a client says of itself.
    pub fn heartbeat(&self, channel: &Channel, frame: &Frame, data: HeartbeatData) -> Heartbeat {
        let client = ClientInfo {
            client_id: data.client_id,
            address: channel.remote().to_string(),
            language: frame.language.name().to_owned(),
            version: frame.version,
        };
        let now = Instant::now();
        let mut state = self.state.write();
        let local = state.local.entry(channel.id()).or_insert_with(|| Local::new(channel.clone()));
        let mut touched = BTreeSet::new();
        let mut missing = false;
        let mut news = false;
        for consumer in data.consumer_data_set {
            touched.insert(consumer.group_name.clone());
            let (new, incomplete) = local.consumer(&client, consumer, data.without_sub, now);
            news |= new;
            missing |= incomplete;
        }
        for producer in data.producer_data_set {
            news |= local.producer(&client, producer.group_name, now);
        }
        // A channel that closed before its heartbeat was served must not stay (clients.I1).
        if !channel.is_open() {
            state.local.remove(&channel.id());
        }
        let notices = if news { state.rebuild(touched) } else { Vec::new() };
        drop(state);
        if news {
            self.changed.notify_one();
        }
        Heartbeat { sub_changed: missing || !notices.is_empty(), notices }
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
            let Some(local) = state.local.get_mut(&channel) else { return BTreeSet::new() };
            if let Some(group) = producer_group {
                local.producers.remove(&key(group));
            }
            let left = consumer_group.filter(|group| local.consumers.remove(&key(group)).is_some());
            left.map(str::to_owned).into_iter().collect()
        })
    }

    /// Forgets everything registered over a connection that is gone.
    #[must_use]
    pub fn closed(&self, channel: u64) -> Vec<Notice> {
        if !self.state.read().local.contains_key(&channel) {
            return Vec::new();
        }
        self.change(|state| state.local.remove(&channel).map(|local| local.groups()).unwrap_or_default())
    }

    /// Forgets who was not heard of for too long.
    #[must_use]
    pub fn expire(&self) -> Vec<Notice> {
        let now = Instant::now();
        self.change(|state| {
            let mut touched = BTreeSet::new();
            for local in state.local.values_mut() {
                local.expire(now, &mut touched);
            }
            for heard in state.shares.values_mut().filter(|heard| !heard.expired) {
                if now.duration_since(heard.at) > SHARE_EXPIRES_AFTER {
                    heard.expired = true;
                    touched.extend(groups_of(&heard.share));
                }
            }
            touched
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
            if before.share == share && !before.expired {
                before.at = Instant::now();
                return Vec::new();
            }
            touched = groups_of(&before.share);
        }
        touched.extend(groups_of(&share));
        state.shares.insert(node, Heard { share, at: Instant::now(), expired: false });
        state.rebuild(touched)
    }

    /// This node's part of the table, to be told to its peers.
    pub fn share(&self) -> Bytes {
        let state = self.state.read();
        let locals = || state.local.values();
        let share = Share {
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
            Ok(bytes) => bytes.into(),
            Err(error) => {
                tracing::error!("the client table does not encode: {error}");
                Bytes::new()
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

    fn change(&self, change: impl FnOnce(&mut State) -> BTreeSet<String>) -> Vec<Notice> {
        let mut state = self.state.write();
        let touched = change(&mut state);
        if touched.is_empty() {
            return Vec::new();
        }
        let notices = state.rebuild(touched);
        drop(state);
        self.changed.notify_one();
        notices
    }
}

impl State {
    /// Derives the views of these groups again; says whom to tell.
    fn rebuild(&mut self, touched: BTreeSet<String>) -> Vec<Notice> {
        let mut notices = Vec::new();
        for group in touched {
            let view = GroupView::of(self.consumers_of(&group));
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

    fn consumers_of(&self, group: &str) -> impl Iterator<Item = &Consumer> {
        let heard = self.shares.values().filter(|heard| !heard.expired);
        let heard = heard.flat_map(|heard| &heard.share.consumers);
        let local = self.local.values().flat_map(|local| local.consumers.values()).map(|timed| &timed.what);
        heard.chain(local).filter(move |consumer| consumer.data.group_name == group)
    }
}

impl Local {
    fn new(channel: Channel) -> Self {
        Self { channel, consumers: BTreeMap::new(), producers: BTreeMap::new() }
    }

    /// Registers a consumer; whether anything is new, and whether its subscriptions are not known.
    fn consumer(
        &mut self,
        client: &ClientInfo,
        mut data: ConsumerData,
        without_sub: bool,
        now: Instant,
    ) -> (bool, bool) {
        let key = (data.group_name.clone(), client.client_id.clone());
        let known = self.consumers.get(&key);
        if without_sub && let Some(known) = known {
            data.subscription_data_set = known.what.data.subscription_data_set.clone();
        }
        let missing = without_sub && known.is_none();
        let consumer = Consumer { client: client.clone(), data };
        let new = known.is_none_or(|known| known.what != consumer);
        self.consumers.insert(key, Timed { what: consumer, heard: now });
        (new, missing)
    }

    fn producer(&mut self, client: &ClientInfo, group: String, now: Instant) -> bool {
        let key = (group.clone(), client.client_id.clone());
        let producer = Producer { client: client.clone(), group };
        let before = self.producers.insert(key, Timed { what: producer.clone(), heard: now });
        before.is_none_or(|before| before.what != producer)
    }

    fn expire(&mut self, now: Instant, touched: &mut BTreeSet<String>) {
        let alive = |heard: Instant| now.duration_since(heard) <= CLIENT_EXPIRES_AFTER;
        self.producers.retain(|_, timed| alive(timed.heard));
        self.consumers.retain(|(group, _), timed| {
            let keep = alive(timed.heard);
            if !keep {
                touched.insert(group.clone());
            }
            keep
        });
    }

    fn consumes(&self, group: &str) -> bool {
        self.consumers.keys().any(|(consumed, _)| consumed == group)
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
