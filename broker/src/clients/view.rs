//! What a consumer group looks like from all registrations together, derived when somebody asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use folio_protocol::body::{ConsumeFromWhere, ConsumeType, MessageModel, SubscriptionData};

use super::{ClientInfo, Consumer};

/// A consumer group's members and subscriptions, over all nodes.
#[derive(Debug, Clone, Default)]
pub struct GroupView {
    /// Members by client id.
    pub members: BTreeMap<String, Member>,
    /// What the group subscribes to, by topic. Members must agree; if they do not, the newest counts.
    pub subscriptions: BTreeMap<String, Arc<SubscriptionData>>,
    /// How it consumes, as the last member says.
    pub consume_type: ConsumeType,
    /// Each message to one or to all, as the last member says.
    pub message_model: MessageModel,
    /// Where it starts, as the last member says.
    pub consume_from_where: ConsumeFromWhere,
}

/// One member of a group.
#[derive(Debug, Clone)]
pub struct Member {
    /// Who it is. A client connected to several nodes is listed once.
    pub client: ClientInfo,
}

impl GroupView {
    /// Builds the view of one group from its registrations.
    pub(super) fn of<'a>(consumers: impl Iterator<Item = &'a Consumer>) -> Self {
        let mut view = Self::default();
        for consumer in consumers {
            view.add(consumer);
        }
        view
    }

    fn add(&mut self, consumer: &Consumer) {
        let client = consumer.client.clone();
        self.members.insert(client.client_id.clone(), Member { client });
        self.consume_type = consumer.data.consume_type;
        self.message_model = consumer.data.message_model;
        self.consume_from_where = consumer.data.consume_from_where;
        for subscription in &consumer.data.subscription_data_set {
            let known = self.subscriptions.get(&subscription.topic);
            if known.is_none_or(|known| rank(subscription) > rank(known)) {
                self.subscriptions.insert(subscription.topic.clone(), Arc::new(subscription.clone()));
            }
        }
    }
}

/// Newest first; every node picks the same one, in whatever order it hears of them.
fn rank(subscription: &SubscriptionData) -> (i64, &str) {
    (subscription.sub_version, &subscription.sub_string)
}
