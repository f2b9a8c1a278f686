//! Heartbeats: the request 34.

use serde::{Deserialize, Serialize};

use super::lenient::{list, wire_enums};
use super::subscription::SubscriptionData;
use crate::limits::{HEARTBEAT_GROUPS_MAX, SUBSCRIPTIONS_MAX};

/// What a client says of itself every half minute.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeartbeatData {
    /// The client.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// Producer groups it is in.
    #[serde(deserialize_with = "list::<_, _, HEARTBEAT_GROUPS_MAX>")]
    pub producer_data_set: Vec<ProducerData>,
    /// Consumer groups it is in.
    #[serde(deserialize_with = "list::<_, _, HEARTBEAT_GROUPS_MAX>")]
    pub consumer_data_set: Vec<ConsumerData>,
    /// A hash of the rest; not 0 in heartbeats of the second version.
    pub heartbeat_fingerprint: i32,
    /// Whether subscriptions were left out, as they have not changed.
    pub without_sub: bool,
}

/// A producer group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerData {
    /// Its name.
    pub group_name: String,
}

/// A consumer group, as this client sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerData {
    /// Its name.
    pub group_name: String,
    /// Pull, push or pop.
    pub consume_type: ConsumeType,
    /// Each message to one member or to all.
    pub message_model: MessageModel,
    /// Where a new group starts.
    pub consume_from_where: ConsumeFromWhere,
    /// Its subscriptions.
    #[serde(deserialize_with = "list::<_, _, SUBSCRIPTIONS_MAX>")]
    pub subscription_data_set: Vec<SubscriptionData>,
    /// Obsolete.
    pub unit_mode: bool,
}

wire_enums! {
    /// How a consumer gets messages.
    ConsumeType, default Passively {
        /// Pull.
        Actively = "CONSUME_ACTIVELY";
        /// Push, which pulls too.
        Passively = "CONSUME_PASSIVELY";
        /// Pop.
        Pop = "CONSUME_POP";
    }
}

wire_enums! {
    /// Who of a group gets a message.
    MessageModel, default Clustering {
        /// Every member.
        Broadcasting = "BROADCASTING";
        /// One member.
        Clustering = "CLUSTERING";
    }
}

wire_enums! {
    /// Where a group without offsets starts.
    ConsumeFromWhere, default LastOffset {
        /// After the last message.
        LastOffset = "CONSUME_FROM_LAST_OFFSET";
        /// Obsolete.
        LastOffsetAndMinWhenBootFirst = "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST";
        /// Obsolete.
        MinOffset = "CONSUME_FROM_MIN_OFFSET";
        /// Obsolete.
        MaxOffset = "CONSUME_FROM_MAX_OFFSET";
        /// At the first message.
        FirstOffset = "CONSUME_FROM_FIRST_OFFSET";
        /// At a time.
        Timestamp = "CONSUME_FROM_TIMESTAMP";
    }
}
