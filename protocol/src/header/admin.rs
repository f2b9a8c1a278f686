//! What admin tools ask about groups, offsets, statistics and name server entries: codes 100 to
//! 102, 202 to 205, 208, 219, 222, 224, 300, 303, 307, 309, 314, 315, 317, 327, 343, 345, 370.

use super::header;
use crate::Name;

header! {
    /// 202, 300: a topic and nothing else.
    TopicHeader {
        /// The topic.
        "topic" => topic: Name;
    }
}

header! {
    /// 343: a group and nothing else.
    GroupHeader {
        /// The group.
        "group" => group: Name;
    }
}

header! {
    /// 303, 345: a group, and a topic of it.
    GroupTopicHeader {
        /// The group.
        "group" => group: Name;
        /// The topic.
        "topic" => topic: Option<Name>;
    }
}

header! {
    /// 203.
    GetConsumerConnectionsHeader {
        /// Whose members.
        "consumerGroup" => consumer_group: Name;
    }
}

header! {
    /// 204.
    GetProducerConnectionsHeader {
        /// Whose members.
        "producerGroup" => producer_group: Name;
    }
}

header! {
    /// 208.
    GetConsumeStatsHeader {
        /// Whose progress.
        "consumerGroup" => consumer_group: Name;
        /// In one topic; absent or empty: in all.
        "topic" => topic: Option<Name>;
    }
}

header! {
    /// 222.
    ResetOffsetHeader {
        /// Whose offsets.
        "group" => group: Name;
        /// In which topic.
        "topic" => topic: Name;
        /// In which queue; -1 for all.
        "queueId" => queue_id: i32 = -1;
        /// To this offset, if it is there.
        "offset" => offset: Option<i64>;
        /// Else to this time, ms; -1 for the end.
        "timestamp" => timestamp: i64;
        /// Whether forwards too.
        "isForce" => is_force: bool;
    }
}

header! {
    /// 314.
    CloneGroupOffsetHeader {
        /// From this group.
        "srcGroup" => source_group: Name;
        /// To that one.
        "destGroup" => target_group: Name;
        /// In one topic; absent: in all.
        "topic" => topic: Option<Name>;
        /// Whether the source is offline.
        "offline" => offline: bool = false;
    }
}

header! {
    /// 307, relayed to a client.
    GetConsumerRunningInfoHeader {
        /// The group.
        "consumerGroup" => consumer_group: Name;
        /// Its member.
        "clientId" => client_id: Name;
        /// Whether stacks are wanted.
        "jstackEnable" => stack_enable: bool = false;
    }
}

header! {
    /// 309, relayed to a client.
    ConsumeDirectlyHeader {
        /// The group.
        "consumerGroup" => consumer_group: Name;
        /// Its member; absent: any.
        "clientId" => client_id: Option<Name>;
        /// The message's offset id.
        "msgId" => msg_id: Option<String>;
        /// The broker that has it.
        "brokerName" => broker_name: Option<Name>;
        /// Its topic.
        "topic" => topic: Option<Name>;
    }
}

header! {
    /// 315.
    ViewBrokerStatsHeader {
        /// Which statistic.
        "statsName" => stats_name: String;
        /// Of what.
        "statsKey" => stats_key: String;
    }
}

header! {
    /// 317.
    GetBrokerConsumeStatsHeader {
        /// Whether ordered groups are meant.
        "isOrder" => is_order: bool;
    }
}

header! {
    /// 205, 327.
    BrokerNameHeader {
        /// The broker.
        "brokerName" => broker_name: Name;
    }
}

header! {
    /// 224.
    ClusterHeader {
        /// The cluster.
        "cluster" => cluster: Name;
    }
}

header! {
    /// 100.
    PutKvHeader {
        /// Where.
        "namespace" => namespace: String;
        /// What.
        "key" => key: String;
        /// Its value.
        "value" => value: String;
    }
}

header! {
    /// 101, 102.
    KvHeader {
        /// Where.
        "namespace" => namespace: String;
        /// What.
        "key" => key: String;
    }
}

header! {
    /// The answer to 101.
    KvResponseHeader {
        /// The value.
        "value" => value: Option<String>;
    }
}

header! {
    /// 219.
    NamespaceHeader {
        /// Where.
        "namespace" => namespace: String;
    }
}

header! {
    /// 370.
    RecallMessageHeader {
        /// The producer's group.
        "producerGroup" => producer_group: Option<Name>;
        /// The message's topic.
        "topic" => topic: Name;
        /// What the SEND's answer gave.
        "recallHandle" => recall_handle: String;
    }
}

header! {
    /// The answer to 370.
    RecallMessageResponseHeader {
        /// The message's UNIQ_KEY.
        "msgId" => msg_id: String;
    }
}
