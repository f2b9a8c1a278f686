//! Whether a pull may be served at all, in RocketMQ's order of checks, and what it is after.

use std::sync::Arc;

use folio_broker::identity::Identity;
use folio_broker::system;
use folio_protocol::body::SubscriptionData;
use folio_protocol::flags::{PermissionBits, pull_sys_flag};
use folio_protocol::header::PullMessageHeader;
use folio_protocol::subscription::TagFilter;
use folio_state::{State, Topic};

use crate::error::ServerError;

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

/// Checks a pull.
pub(crate) fn subject(
    rules: &Rules<'_>,
    consumers: &impl Consumers,
    header: &PullMessageHeader,
) -> Result<Subject, ServerError> {
    if !rules.broker_readable {
        return Err(ServerError::NoPermission("the broker pulling message is forbidden".to_owned()));
    }
    let group = rules.state.group(&header.consumer_group);
    let group = group.ok_or_else(|| ServerError::GroupNotExist(header.consumer_group.to_string()))?;
    if !group.consume_enable {
        return Err(ServerError::NoPermission(format!("subscription group no permission, {}", group.name)));
    }
    let (queue, topic_sys_flag) = match rules.state.topic(&header.topic) {
        Some(topic) => queue_of(topic, header)?,
        None => match system::topic(&header.topic, rules.identity) {
            Some(topic) => queue_of(&topic, header)?,
            None => return Err(ServerError::TopicNotExist(header.topic.to_string())),
        },
    };
    let filter = if header.sys_flag & pull_sys_flag::SUBSCRIPTION != 0 {
        let expression = header.subscription.as_deref().unwrap_or("");
        filter_of(header.expression_type.as_deref(), expression)?
    } else {
        if !group.consume_broadcast_enable && consumers.is_broadcasting(&group.name) {
            let text = format!("the consumer group[{}] can not consume by broadcast way", group.name);
            return Err(ServerError::NoPermission(text));
        }
        known_filter(consumers, header)?
    };
    Ok(Subject { queue, filter, topic_sys_flag, group_sys_flag: group.sys_flag as i32 })
}

fn queue_of(topic: &Topic, header: &PullMessageHeader) -> Result<(u32, i32), ServerError> {
    let name = &topic.name;
    if !PermissionBits(topic.perm).is_readable() {
        return Err(ServerError::NoPermission(format!("the topic[{name}] pulling message is forbidden")));
    }
    let queue = u32::try_from(header.queue_id).ok().filter(|queue| *queue < topic.read_queues);
    let queue = queue.ok_or_else(|| {
        ServerError::InvalidParameter(format!(
            "queueId[{}] is illegal, topic:[{name}] topicConfig.readQueueNums:[{}]",
            header.queue_id, topic.read_queues
        ))
    })?;
    Ok((queue, topic.sys_flag as i32))
}

fn known_filter(
    consumers: &impl Consumers,
    header: &PullMessageHeader,
) -> Result<Arc<TagFilter>, ServerError> {
    let known = consumers.subscription(&header.consumer_group, &header.topic);
    let known = known.ok_or(ServerError::SubscriptionNotExist)?;
    if known.sub_version < header.sub_version {
        return Err(ServerError::SubscriptionNotLatest);
    }
    filter_of(known.expression_type.as_deref(), &known.sub_string)
}

fn filter_of(kind: Option<&str>, expression: &str) -> Result<Arc<TagFilter>, ServerError> {
    match kind {
        None | Some("" | folio_protocol::body::TAG) => Ok(Arc::new(TagFilter::parse(expression)?)),
        Some(other) => Err(ServerError::FilterNotSupported(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use folio_protocol::code::ResponseCode;
    use folio_protocol::java::tags_code;
    use folio_state::{ConsumerGroup, PutGroup, PutTopic};

    use super::*;

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
        crate::handlers::testing::identity()
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

    fn header(group: &str, topic: &str) -> PullMessageHeader {
        PullMessageHeader {
            consumer_group: group.into(),
            topic: topic.into(),
            queue_id: 0,
            queue_offset: 0,
            max_msg_nums: 32,
            sys_flag: pull_sys_flag::SUBSCRIPTION,
            commit_offset: 0,
            suspend_timeout_millis: 0,
            subscription: Some("*".to_owned()),
            sub_version: 0,
            expression_type: None,
            max_msg_bytes: None,
            request_source: None,
            proxy_forward_client_id: None,
        }
    }

    fn check(known: &Known, header: &PullMessageHeader) -> Result<Subject, ServerError> {
        let (state, identity) = (state(), identity());
        subject(&Rules { state: &state, identity: &identity, broker_readable: true }, known, header)
    }

    fn refused(known: &Known, header: &PullMessageHeader) -> ResponseCode {
        check(known, header).expect_err("refused").code()
    }

    #[test]
    fn the_requests_own_subscription_is_taken() {
        let wish =
            PullMessageHeader { subscription: Some("TagA".to_owned()), queue_id: 3, ..header("g", "orders") };
        let subject = check(&Known::default(), &wish).expect("served");
        assert_eq!(subject.queue, 3);
        assert!(subject.filter.matches(tags_code("TagA")) && !subject.filter.matches(tags_code("TagB")));
    }

    #[test]
    fn without_one_the_heartbeats_subscription_counts() {
        let wish = PullMessageHeader { sys_flag: 0, sub_version: 5, ..header("g", "orders") };
        assert_eq!(refused(&Known::default(), &wish), ResponseCode::SubscriptionNotExist);
        let known = |version| Known {
            subscription: Some(SubscriptionData {
                sub_string: "TagA".to_owned(),
                sub_version: version,
                ..SubscriptionData::default()
            }),
            broadcasting: false,
        };
        assert_eq!(refused(&known(4), &wish), ResponseCode::SubscriptionNotLatest);
        assert!(!check(&known(5), &wish).expect("served").filter.matches(0));
    }

    #[test]
    fn unknown_or_forbidden_groups_topics_and_queues_are_refused() {
        let known = Known::default();
        assert_eq!(refused(&known, &header("?", "orders")), ResponseCode::SubscriptionGroupNotExist);
        assert_eq!(refused(&known, &header("off", "orders")), ResponseCode::NoPermission);
        assert_eq!(refused(&known, &header("g", "?")), ResponseCode::TopicNotExist);
        assert_eq!(refused(&known, &header("g", "write-only")), ResponseCode::NoPermission);
        for queue_id in [-1, 4] {
            let wish = PullMessageHeader { queue_id, ..header("g", "orders") };
            assert_eq!(refused(&known, &wish), ResponseCode::InvalidParameter);
        }
    }

    #[test]
    fn a_broker_without_read_permission_gives_nothing() {
        let (state, identity) = (state(), identity());
        let rules = Rules { state: &state, identity: &identity, broker_readable: false };
        let outcome = subject(&rules, &Known::default(), &header("g", "orders"));
        assert_eq!(outcome.expect_err("refused").code(), ResponseCode::NoPermission);
    }

    #[test]
    fn broadcasting_is_refused_where_the_group_forbids_it() {
        let known = Known { broadcasting: true, ..Known::default() };
        let wish = PullMessageHeader { sys_flag: 0, ..header("no-broadcast", "orders") };
        assert_eq!(refused(&known, &wish), ResponseCode::NoPermission);
    }

    #[test]
    fn sql_and_malformed_expressions_are_refused() {
        let sql = PullMessageHeader { expression_type: Some("SQL92".to_owned()), ..header("g", "orders") };
        let error = check(&Known::default(), &sql).expect_err("refused");
        assert_eq!(error.code(), ResponseCode::SystemError);
        assert_eq!(error.to_string(), "The broker does not support consumer to filter message by SQL92");
        let odd = PullMessageHeader { subscription: Some("||".to_owned()), ..header("g", "orders") };
        assert_eq!(refused(&Known::default(), &odd), ResponseCode::SubscriptionParseFailed);
        let long = PullMessageHeader { subscription: Some("a||".repeat(10_000)), ..header("g", "orders") };
        let error = check(&Known::default(), &long).expect_err("refused");
        assert_eq!(error.code(), ResponseCode::SubscriptionParseFailed);
        assert!(error.to_string().contains("limit"), "{error}");
    }

    #[test]
    fn built_in_topics_can_be_pulled() {
        assert!(check(&Known::default(), &header("g", "RMQ_SYS_TRACE_TOPIC")).is_ok());
    }
}
