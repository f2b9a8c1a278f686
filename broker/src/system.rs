//! Topics RocketMQ has without anybody creating them. They are not replicated: their name says all.

use std::collections::BTreeMap;

use folio_protocol::names;
use folio_state::{PERM_INHERIT, PERM_READ, PERM_WRITE, Topic};

use crate::identity::Identity;

/// Queues of the template topic, RocketMQ's `defaultTopicQueueNums`.
pub(crate) const DEFAULT_QUEUES: u32 = 8;
/// Queues of the topic that carries the cluster's name.
const CLUSTER_TOPIC_QUEUES: u32 = 16;
/// Queues of RocketMQ's own benchmark topic.
const BENCHMARK_QUEUES: u32 = 1_024;
/// Delay levels.
const SCHEDULE_QUEUES: u32 = 18;

/// The built-in topic of that name.
pub(crate) fn topic(name: &str, identity: &Identity) -> Option<Topic> {
    let all = PERM_INHERIT | PERM_READ | PERM_WRITE;
    let usual = PERM_READ | PERM_WRITE;
    let (queues, perm) = match name {
        names::AUTO_CREATE_TOPIC => (DEFAULT_QUEUES, all),
        names::BENCHMARK_TOPIC => (BENCHMARK_QUEUES, usual),
        names::SCHEDULE_TOPIC => (SCHEDULE_QUEUES, usual),
        names::TRACE_TOPIC | names::SELF_TEST_TOPIC | names::OFFSET_MOVED_TOPIC => (1, usual),
        names::HALF_TOPIC | names::HALF_OP_TOPIC | names::TRANSACTION_CHECK_MAX_TOPIC => (1, usual),
        _ if name == identity.cluster => (CLUSTER_TOPIC_QUEUES, all),
        _ if name == identity.broker_name => (1, all),
        _ if name.strip_suffix(names::REPLY_TOPIC_SUFFIX) == Some(&identity.cluster) => (1, usual),
        _ => return None,
    };
    Some(Topic { perm, attributes: BTreeMap::new(), ..Topic::new(name, queues) })
}

/// The names of all built-in topics.
pub(crate) fn names(identity: &Identity) -> Vec<String> {
    let mut all: Vec<String> = names::SYSTEM_TOPICS.iter().map(|name| (*name).to_owned()).collect();
    all.push(identity.cluster.clone());
    all.push(identity.broker_name.clone());
    all.push(format!("{}{}", identity.cluster, names::REPLY_TOPIC_SUFFIX));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_name_is_a_topic_and_others_are_not() {
        let identity = Identity {
            cluster: "c1".to_owned(),
            broker_name: "b1".to_owned(),
            node_id: 1,
            store_host: ([127, 0, 0, 1], 10911).into(),
            addresses: crate::clients::Addresses::default(),
        };
        for name in names(&identity) {
            assert!(topic(&name, &identity).is_some(), "{name}");
        }
        assert!(topic("orders", &identity).is_none());
        assert!(topic("other_REPLY_TOPIC", &identity).is_none());
        assert!(topic("TBW102", &identity).is_some_and(|topic| topic.perm == 7));
    }
}
