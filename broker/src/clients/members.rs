//! The consumers of each group on all nodes, and what the group is from all of them: who is in it, and what it subscribes to.
//!
//! Both are kept beside the consumers, under the table's one lock (`clients.I2`): a consumer that comes or goes costs what it says
//! itself, however many others are in its group (`clients.I5`). To derive a group from its members anew with each of them made
//! each newcomer of a group of thousands hold the table for milliseconds.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use folio_protocol::body::SubscriptionData;

use super::Consumer;

/// Where a consumer is registered, with its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// At another node.
    Node(u64, u64),
    /// At this node, over this connection.
    Channel(u64, u64),
}

/// See the module.
#[derive(Default)]
pub(super) struct Members {
    groups: HashMap<String, Group>,
    /// What was changed since the last [`Members::changed`], as it was before.
    before: BTreeMap<String, Before>,
}

#[derive(Default)]
struct Group {
    consumers: BTreeMap<Place, Arc<Consumer>>,
    /// Client ids, each with the number of its consumers: a client connected to several nodes is listed once.
    clients: BTreeMap<String, usize>,
    topics: BTreeMap<String, Wanted>,
    /// This node's connections with consumers of the group, and how many.
    channels: BTreeMap<u64, usize>,
}

/// What a group wants of a topic. Members must agree; if they do not, the newest counts.
#[derive(Default)]
struct Wanted {
    /// Each with the number of consumers that say so, and one of them with its place in that one's list.
    wishes: BTreeMap<Wish, (usize, Arc<Consumer>, usize)>,
    newest: Arc<SubscriptionData>,
}

/// Version and expression: the newest version is last, and every node takes the same one of two with one version, in
/// whatever order it hears of them.
type Wish = (i64, String);

/// Parts of a group that were changed, as they were.
#[derive(Default)]
struct Before {
    /// Whether the client was listed.
    clients: BTreeMap<String, bool>,
    /// The expression that counted.
    topics: BTreeMap<String, Option<String>>,
}

impl Members {
    /// A consumer comes, or says something else than before.
    pub(super) fn insert(&mut self, place: Place, consumer: Arc<Consumer>) {
        let name = consumer.data.group_name.as_str();
        self.remove(place, name);
        let group = match self.groups.get_mut(name) {
            Some(group) => group,
            None => self.groups.entry(name.to_owned()).or_default(),
        };
        before(&mut self.before, name, group, &consumer);
        group.insert(place, consumer);
    }

    /// A consumer goes.
    pub(super) fn remove(&mut self, place: Place, name: &str) {
        let Some(group) = self.groups.get_mut(name) else { return };
        let Some(consumer) = group.consumers.remove(&place) else { return };
        before(&mut self.before, name, group, &consumer);
        group.forget(place, &consumer);
        if group.consumers.is_empty() {
            self.groups.remove(name);
        }
    }

    /// The groups whose members have to be told since the last call, each with this node's connections that are in it:
    /// somebody came or went, or the group wants other messages.
    pub(super) fn changed(&mut self) -> Vec<(String, Vec<u64>)> {
        let before = std::mem::take(&mut self.before);
        let differ = before.into_iter().filter(|(name, before)| before.differs(self.groups.get(name)));
        let channels = |name: String| {
            let group = self.groups.get(&name);
            let channels = group.map(|group| group.channels.keys().copied().collect());
            (name, channels.unwrap_or_default())
        };
        differ.map(|(name, _)| channels(name)).collect()
    }

    /// Those of one group: at other nodes first.
    pub(super) fn of(&self, group: &str) -> impl Iterator<Item = &Consumer> {
        let group = self.groups.get(group).into_iter();
        group.flat_map(|group| group.consumers.values()).map(AsRef::as_ref)
    }

    /// The client ids of a group, sorted.
    pub(super) fn clients(&self, group: &str) -> impl Iterator<Item = &String> {
        self.groups.get(group).into_iter().flat_map(|group| group.clients.keys())
    }

    /// The groups that subscribe to a topic.
    pub(super) fn groups_of(&self, topic: &str) -> impl Iterator<Item = &String> {
        let of_topic = self.groups.iter().filter(move |(_, group)| group.topics.contains_key(topic));
        of_topic.map(|(name, _)| name)
    }

    /// What a group wants of a topic.
    pub(super) fn subscription(&self, group: &str, topic: &str) -> Option<&Arc<SubscriptionData>> {
        Some(&self.groups.get(group)?.topics.get(topic)?.newest)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

/// Notes what a consumer's coming or going may change of its group.
fn before(all: &mut BTreeMap<String, Before>, name: &str, group: &Group, consumer: &Consumer) {
    let before = match all.get_mut(name) {
        Some(before) => before,
        None => all.entry(name.to_owned()).or_default(),
    };
    let client = &consumer.client.client_id;
    if !before.clients.contains_key(client) {
        before.clients.insert(client.clone(), group.clients.contains_key(client));
    }
    for SubscriptionData { topic, .. } in &consumer.data.subscription_data_set {
        if !before.topics.contains_key(topic) {
            before.topics.insert(topic.clone(), group.expression(topic).map(str::to_owned));
        }
    }
}

impl Before {
    fn differs(&self, now: Option<&Group>) -> bool {
        let is_listed = |client: &str| now.is_some_and(|now| now.clients.contains_key(client));
        let expression = |topic: &str| now.and_then(|now| now.expression(topic));
        self.clients.iter().any(|(client, listed)| *listed != is_listed(client))
            || self.topics.iter().any(|(topic, before)| before.as_deref() != expression(topic))
    }
}

impl Group {
    fn expression(&self, topic: &str) -> Option<&str> {
        self.topics.get(topic).map(|wanted| wanted.newest.sub_string.as_str())
    }

    fn insert(&mut self, place: Place, consumer: Arc<Consumer>) {
        count(&mut self.clients, &consumer.client.client_id);
        if let Place::Channel(channel, _) = place {
            *self.channels.entry(channel).or_default() += 1;
        }
        for (at, subscription) in consumer.data.subscription_data_set.iter().enumerate() {
            let wanted = match self.topics.get_mut(&subscription.topic) {
                Some(wanted) => wanted,
                None => self.topics.entry(subscription.topic.clone()).or_default(),
            };
            wanted.wishes.entry(wish(subscription)).or_insert_with(|| (0, consumer.clone(), at)).0 += 1;
            wanted.find_newest();
        }
        self.consumers.insert(place, consumer);
    }

    /// The consumer was taken out: nothing of it counts any more.
    fn forget(&mut self, place: Place, consumer: &Consumer) {
        uncount(&mut self.clients, &consumer.client.client_id);
        if let Place::Channel(channel, _) = place {
            uncount(&mut self.channels, &channel);
        }
        for subscription in &consumer.data.subscription_data_set {
            let Some(wanted) = self.topics.get_mut(&subscription.topic) else { continue };
            wanted.forget(&wish(subscription));
            if wanted.wishes.is_empty() {
                self.topics.remove(&subscription.topic);
            }
        }
    }
}

impl Wanted {
    fn forget(&mut self, wish: &Wish) {
        let Some((count, ..)) = self.wishes.get_mut(wish) else { return };
        *count -= 1;
        if *count == 0 {
            self.wishes.remove(wish);
            self.find_newest();
        }
    }

    fn find_newest(&mut self) {
        let Some(((version, expression), (_, consumer, at))) = self.wishes.last_key_value() else { return };
        if (self.newest.sub_version, &self.newest.sub_string) == (*version, expression)
            && !self.newest.topic.is_empty()
        {
            return;
        }
        if let Some(subscription) = consumer.data.subscription_data_set.get(*at) {
            self.newest = Arc::new(subscription.clone());
        }
    }
}

fn wish(subscription: &SubscriptionData) -> Wish {
    (subscription.sub_version, subscription.sub_string.clone())
}

fn count(counts: &mut BTreeMap<String, usize>, key: &str) {
    match counts.get_mut(key) {
        Some(count) => *count += 1,
        None => drop(counts.insert(key.to_owned(), 1)),
    }
}

fn uncount<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    let Some(count) = counts.get_mut(key) else { return };
    *count -= 1;
    if *count == 0 {
        counts.remove(key);
    }
}
