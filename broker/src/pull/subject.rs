//! Whether a pull may be served at all, in RocketMQ's order of checks, and what it is after.

use std::sync::Arc;

use folio_protocol::body::{MessageModel, SubscriptionData};
use folio_protocol::flags::PermissionBits;
use folio_protocol::subscription::TagFilter;
use folio_state::{State, Topic};

use super::to_pull::{Subscription, ToPull};
use crate::clients::ClientTable;
use crate::error::BrokerError;
use crate::identity::Identity;
use crate::system;

/// What a pull that may be served is after.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) queue: u32,
    /// Shared with the table of held pulls.
    pub(crate) filter: Arc<TagFilter>,
    pub(crate) topic_sys_flag: i32,
    pub(crate) group_sys_flag: i32,
}

/// What the checks look at besides the request.
pub(crate) struct Rules<'a> {
    pub(crate) state: &'a State,
    pub(crate) identity: &'a Identity,
    /// Whether this broker gives messages at all (`brokerPermission`).
    pub(crate) broker_readable: bool,
}

/// What the client table knows of a group.
pub(crate) trait Consumers {
    /// What the group subscribes to of a topic, by its heartbeats.
    fn subscription(&self, group: &str, topic: &str) -> Option<Arc<SubscriptionData>>;
    /// Whether the group's members each want every message.
    fn is_broadcasting(&self, group: &str) -> bool;
}

impl Consumers for ClientTable {
    fn subscription(&self, group: &str, topic: &str) -> Option<Arc<SubscriptionData>> {
        ClientTable::subscription(self, group, topic)
    }

    fn is_broadcasting(&self, group: &str) -> bool {
        self.group(group).is_some_and(|view| view.message_model == MessageModel::Broadcasting)
    }
}

/// Checks a pull.
pub(crate) fn subject(
    rules: &Rules<'_>,
    consumers: &impl Consumers,
    wish: &ToPull,
) -> Result<Subject, BrokerError> {
    if !rules.broker_readable {
        return Err(BrokerError::NoPermission("the broker pulling message is forbidden".to_owned()));
    }
    let group = rules.state.group(&wish.group);
    let group = group.ok_or_else(|| BrokerError::GroupNotExist(wish.group.to_string()))?;
    if !group.consume_enable {
        return Err(BrokerError::NoPermission(format!("subscription group no permission, {}", group.name)));
    }
    let (queue, topic_sys_flag) = match rules.state.topic(&wish.topic) {
        Some(topic) => queue_of(topic, wish)?,
        None => match system::topic(&wish.topic, rules.identity) {
            Some(topic) => queue_of(&topic, wish)?,
            None => return Err(BrokerError::TopicNotExist(wish.topic.to_string())),
        },
    };
    let filter = if let Some(Subscription { expression, kind }) = &wish.subscription {
        filter_of(kind.as_deref(), expression)?
    } else {
        if !group.consume_broadcast_enable && consumers.is_broadcasting(&group.name) {
            let text = format!("the consumer group[{}] can not consume by broadcast way", group.name);
            return Err(BrokerError::NoPermission(text));
        }
        known_filter(consumers, wish)?
    };
    Ok(Subject { queue, filter, topic_sys_flag, group_sys_flag: group.sys_flag as i32 })
}

fn queue_of(topic: &Topic, wish: &ToPull) -> Result<(u32, i32), BrokerError> {
    let name = &topic.name;
    if !PermissionBits(topic.perm).is_readable() {
        return Err(BrokerError::NoPermission(format!("the topic[{name}] pulling message is forbidden")));
    }
    let queue = u32::try_from(wish.queue_id).ok().filter(|queue| *queue < topic.read_queues);
    let queue = queue.ok_or_else(|| {
        BrokerError::InvalidParameter(format!(
            "queueId[{}] is illegal, topic:[{name}] topicConfig.readQueueNums:[{}]",
            wish.queue_id, topic.read_queues
        ))
    })?;
    Ok((queue, topic.sys_flag as i32))
}

fn known_filter(consumers: &impl Consumers, wish: &ToPull) -> Result<Arc<TagFilter>, BrokerError> {
    let known = consumers.subscription(&wish.group, &wish.topic);
    let known = known.ok_or(BrokerError::SubscriptionNotExist)?;
    if known.sub_version < wish.sub_version {
        return Err(BrokerError::SubscriptionNotLatest);
    }
    filter_of(known.expression_type.as_deref(), &known.sub_string)
}

fn filter_of(kind: Option<&str>, expression: &str) -> Result<Arc<TagFilter>, BrokerError> {
    match kind {
        None | Some("" | folio_protocol::body::TAG) => Ok(Arc::new(TagFilter::parse(expression)?)),
        Some(other) => Err(BrokerError::FilterNotSupported(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use folio_protocol::java::tags_code;
    use folio_state::{ConsumerGroup, PutGroup, PutTopic};

    use super::*;
    use crate::testing::kind;

    #[derive(Default)]
    struct Known {
        subscription: Option<SubscriptionData>,
        broadcasting: bool,
    }

    impl Consumers for Known {
        fn subscription(&self, _group: &str, _topic: &str) -> Option<Arc<SubscriptionData>> {
            self.subscription.clone().map(Arc::new)
        }
        fn is_broadcasting(&self, _group: &str) -> bool {
            self.broadcasting
        }
    }

    fn identity() -> Identity {
        crate::testing::identity()
    }

    fn state() -> State {
        let mut state = State::default();
        let mut write_only = Topic::new("write-only", 4);
        write_only.perm = 2;
        state.apply(PutTopic(Topic::new("orders", 4)));
        state.apply(PutTopic(write_only));
        state.apply(PutGroup(ConsumerGroup::new("g")));
        let mut off = ConsumerGroup::new("off");
        off.consume_enable = false;
        state.apply(PutGroup(off));
        let mut no_broadcast = ConsumerGroup::new("no-broadcast");
        no_broadcast.consume_broadcast_enable = false;
        state.apply(PutGroup(no_broadcast));
        state
    }

    fn wish(group: &str, topic: &str) -> ToPull {
        ToPull {
            group: group.into(),
            topic: topic.into(),
            queue_id: 0,
            offset: 0,
            messages_max: 32,
            bytes_max: None,
            subscription: Some(Subscription { expression: "*".to_owned(), kind: None }),
            sub_version: 0,
            wait: None,
        }
    }

    fn expression(text: &str) -> Option<Subscription> {
        Some(Subscription { expression: text.to_owned(), kind: None })
    }

    fn check(known: &Known, wish: &ToPull) -> Result<Subject, BrokerError> {
        let (state, identity) = (state(), identity());
        subject(&Rules { state: &state, identity: &identity, broker_readable: true }, known, wish)
    }

    fn refused(known: &Known, wish: &ToPull) -> String {
        kind(&check(known, wish).expect_err("refused"))
    }

    #[test]
    fn the_requests_own_subscription_is_taken() {
        let wish = ToPull { subscription: expression("TagA"), queue_id: 3, ..wish("g", "orders") };
        let subject = check(&Known::default(), &wish).expect("served");
        assert_eq!(subject.queue, 3);
        assert!(subject.filter.matches(tags_code("TagA")) && !subject.filter.matches(tags_code("TagB")));
    }

    #[test]
    fn without_one_the_heartbeats_subscription_counts() {
        let wish = ToPull { subscription: None, sub_version: 5, ..wish("g", "orders") };
        assert_eq!(refused(&Known::default(), &wish), "SubscriptionNotExist");
        let known = |version| Known {
            subscription: Some(SubscriptionData {
                sub_string: "TagA".to_owned(),
                sub_version: version,
                ..SubscriptionData::default()
            }),
            broadcasting: false,
        };
        assert_eq!(refused(&known(4), &wish), "SubscriptionNotLatest");
        assert!(!check(&known(5), &wish).expect("served").filter.matches(0));
    }

    #[test]
    fn unknown_or_forbidden_groups_topics_and_queues_are_refused() {
        let known = Known::default();
        assert_eq!(refused(&known, &wish("?", "orders")), "GroupNotExist");
        assert_eq!(refused(&known, &wish("off", "orders")), "NoPermission");
        assert_eq!(refused(&known, &wish("g", "?")), "TopicNotExist");
        assert_eq!(refused(&known, &wish("g", "write-only")), "NoPermission");
        for queue_id in [-1, 4] {
            let wish = ToPull { queue_id, ..wish("g", "orders") };
            assert_eq!(refused(&known, &wish), "InvalidParameter");
        }
    }

    #[test]
    fn a_broker_without_read_permission_gives_nothing() {
        let (state, identity) = (state(), identity());
        let rules = Rules { state: &state, identity: &identity, broker_readable: false };
        let outcome = subject(&rules, &Known::default(), &wish("g", "orders"));
        assert_eq!(kind(&outcome.expect_err("refused")), "NoPermission");
    }

    #[test]
    fn broadcasting_is_refused_where_the_group_forbids_it() {
        let known = Known { broadcasting: true, ..Known::default() };
        let wish = ToPull { subscription: None, ..wish("no-broadcast", "orders") };
        assert_eq!(refused(&known, &wish), "NoPermission");
    }

    #[test]
    fn sql_and_malformed_expressions_are_refused() {
        let sql = Some(Subscription { expression: "*".to_owned(), kind: Some("SQL92".to_owned()) });
        let sql = ToPull { subscription: sql, ..wish("g", "orders") };
        let error = check(&Known::default(), &sql).expect_err("refused");
        assert_eq!(kind(&error), "FilterNotSupported");
        assert_eq!(error.to_string(), "The broker does not support consumer to filter message by SQL92");
        let odd = ToPull { subscription: expression("||"), ..wish("g", "orders") };
        assert_eq!(refused(&Known::default(), &odd), "SubscriptionParse");
        let long = ToPull { subscription: expression(&"a||".repeat(10_000)), ..wish("g", "orders") };
        let error = check(&Known::default(), &long).expect_err("refused");
        assert_eq!(kind(&error), "SubscriptionParse");
        assert!(error.to_string().contains("limit"), "{error}");
    }

    #[test]
    fn built_in_topics_can_be_pulled() {
        assert!(check(&Known::default(), &wish("g", "RMQ_SYS_TRACE_TOPIC")).is_ok());
    }
}
