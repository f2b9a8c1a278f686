//! Clients and their groups: codes 34, 35, 36, 38, 40.

use super::header;
use crate::Name;

header! {
    /// The answer to 34.
    HeartbeatResponseHeader {
        /// Whether heartbeats with a fingerprint are understood.
        "IS_SUPPORT_HEART_BEAT_V2" => is_support_v2: bool = false;
        /// Whether the subscription changed by this heartbeat.
        "IS_SUB_CHANGE" => is_sub_change: bool = false;
    }
}

header! {
    /// 35. An empty group means none, as C++ clients send it.
    UnregisterClientHeader {
        /// The client.
        "clientID" => client_id: Name;
        /// The producer group it leaves.
        "producerGroup" => producer_group: Option<Name>;
        /// The consumer group it leaves.
        "consumerGroup" => consumer_group: Option<Name>;
    }
}

header! {
    /// 38.
    GetConsumerListHeader {
        /// Whose members.
        "consumerGroup" => consumer_group: Name;
    }
}

header! {
    /// 40, server to client, oneway.
    NotifyConsumerIdsChangedHeader {
        /// Whose members changed.
        "consumerGroup" => consumer_group: Name;
    }
}

header! {
    /// 36: a consumer could not handle a message.
    ConsumerSendBackHeader {
        /// The message's position in the commit log.
        "offset" => offset: i64;
        /// The consumer's group.
        "group" => group: Name;
        /// 0: the server chooses; below 0: dead letter at once.
        "delayLevel" => delay_level: i32;
        /// The id the message had first.
        "originMsgId" => origin_msg_id: Option<String>;
        /// The topic it came from.
        "originTopic" => origin_topic: Option<Name>;
        /// Obsolete.
        "unitMode" => unit_mode: bool = false;
        /// How often it may be retried.
        "maxReconsumeTimes" => max_reconsume_times: Option<i32>;
        /// The broker meant.
        "bname" => broker_name: Option<Name>;
    }
}
