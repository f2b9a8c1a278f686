//! What is registered over one connection of this node.

use std::collections::BTreeMap;
use std::sync::Arc;

use folio_protocol::body::HeartbeatData;
use tokio::time::Instant;

use super::duplicates::Key;
use super::registered::{Said, Timed};
use super::{CLIENT_EXPIRES_AFTER, ClientInfo, Consumer, Producer};
use crate::connection::Connection;

/// The registrations of one connection.
pub(super) struct Local {
    pub(super) channel: Arc<dyn Connection>,
    pub(super) consumers: BTreeMap<Key, Timed<Consumer>>,
    pub(super) producers: BTreeMap<Key, Timed<Producer>>,
    /// What it takes of the table.
    bytes: usize,
}

/// A heartbeat that is not registered yet.
#[derive(Default)]
pub(super) struct Beat {
    pub(super) consumers: Vec<Said<Consumer>>,
    pub(super) producers: Vec<Said<Producer>>,
    /// Whether subscriptions that were left out are not known.
    pub(super) missing: bool,
}

impl Beat {
    /// Bytes by which the table grows with it.
    pub(super) fn growth(&self) -> isize {
        let consumers: isize = self.consumers.iter().map(|said| said.growth).sum();
        consumers + self.producers.iter().map(|said| said.growth).sum::<isize>()
    }
}

/// Registrations that have ended.
pub(super) struct Ended {
    pub(super) consumers: Vec<(Key, Timed<Consumer>)>,
    pub(super) producers: Vec<Timed<Producer>>,
}

impl Local {
    pub(super) fn new(channel: Arc<dyn Connection>) -> Self {
        Self { channel, consumers: BTreeMap::new(), producers: BTreeMap::new(), bytes: 0 }
    }

    /// What it takes of the table.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn keep_consumer(&mut self, key: Key, consumer: Timed<Consumer>) {
        self.bytes += consumer.bytes;
        self.bytes -= self.consumers.insert(key, consumer).map_or(0, |before| before.bytes);
    }

    pub(super) fn keep_producer(&mut self, key: Key, producer: Timed<Producer>) {
        self.bytes += producer.bytes;
        self.bytes -= self.producers.insert(key, producer).map_or(0, |before| before.bytes);
    }

    /// Takes a client out of a producer and a consumer group.
    pub(super) fn leave(&mut self, producer: Option<Key>, consumer: Option<Key>) -> Ended {
        let producer = producer.and_then(|key| self.producers.remove(&key));
        let consumer = consumer.and_then(|key| self.consumers.remove_entry(&key));
        self.ended(consumer.into_iter().collect(), producer.into_iter().collect())
    }

    fn ended(&mut self, consumers: Vec<(Key, Timed<Consumer>)>, producers: Vec<Timed<Producer>>) -> Ended {
        let of_consumers: usize = consumers.iter().map(|(_, timed)| timed.bytes).sum();
        self.bytes -= of_consumers + producers.iter().map(|timed| timed.bytes).sum::<usize>();
        Ended { consumers, producers }
    }

    /// What a heartbeat says, with the subscriptions that it leaves out where they are known.
    pub(super) fn hear(&self, client: &ClientInfo, data: HeartbeatData) -> Beat {
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
            beat.consumers.push(Said::of(&self.consumers, key, consumer));
        }
        for producer in data.producer_data_set {
            let key = (producer.group_name.clone(), client.client_id.clone());
            let producer = Producer { client: client.clone(), group: producer.group_name };
            beat.producers.push(Said::of(&self.producers, key, producer));
        }
        beat
    }

    /// Takes out who was not heard of for too long.
    pub(super) fn expire(&mut self, now: Instant) -> Ended {
        let silent = |heard: Instant| now.duration_since(heard) > CLIENT_EXPIRES_AFTER;
        let consumers = self.consumers.extract_if(.., |_, timed| silent(timed.heard)).collect();
        let producers = self.producers.extract_if(.., |_, timed| silent(timed.heard));
        let producers = producers.map(|(_, timed)| timed).collect();
        self.ended(consumers, producers)
    }

    /// Takes out everything.
    pub(super) fn end(self) -> Ended {
        Ended {
            consumers: self.consumers.into_iter().collect(),
            producers: self.producers.into_values().collect(),
        }
    }
}
