//! What kind of messages a topic is for: its attribute `message.type`.
//!
//! RocketMQ's proxy checks it where `enableTopicMessageTypeCheck` says so, and takes a topic without the attribute for one of normal
//! messages; so does a send here. Retries and dead letters are not checked.

use folio_protocol::names;
use folio_protocol::properties::{self, SHARDING_KEY};
use folio_state::Topic;

use crate::error::BrokerError;
use crate::send::stored::Kind;

const ATTRIBUTE: &str = "message.type";

/// Whether order matters in a topic.
pub(crate) fn is_fifo(topic: &Topic) -> bool {
    topic.attributes.get(ATTRIBUTE).is_some_and(|kind| kind == "FIFO")
}

/// Refuses a message of another kind than its topic is for. `properties`: as the client sent them.
pub(crate) fn check(topic: &Topic, kind: Kind, properties: &[u8]) -> Result<(), BrokerError> {
    let expected = topic.attributes.get(ATTRIBUTE).map_or("NORMAL", String::as_str);
    let actual = type_of(kind, properties);
    if is_unchecked(&topic.name) || ["MIXED", "UNSPECIFIED", actual].contains(&expected) {
        return Ok(());
    }
    Err(BrokerError::IllegalMessage(format!(
        "TopicMessageType validate failed, the expected type is {expected}, but actual type is {actual} (topic {}, \
         enableTopicMessageTypeCheck)",
        topic.name
    )))
}

fn is_unchecked(topic: &str) -> bool {
    names::is_retry_topic(topic) || names::is_dlq_topic(topic)
}

fn type_of(kind: Kind, properties: &[u8]) -> &'static str {
    match kind {
        Kind::Prepared | Kind::PreparedDelayed => "TRANSACTION",
        Kind::Delayed(_) => "DELAY",
        Kind::Normal if properties::get(properties, SHARDING_KEY).is_some() => "FIFO",
        Kind::Normal => "NORMAL",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::send::stored::look;

    fn topic(name: &str, kind: Option<&str>) -> Topic {
        let attributes = kind.map(|kind| (ATTRIBUTE.to_owned(), kind.to_owned())).into_iter().collect();
        Topic { attributes, ..Topic::new(name, 1) }
    }

    fn checked(topic: &Topic, properties: &str) -> Result<(), BrokerError> {
        check(topic, look(properties.as_bytes()).expect("properties").kind, properties.as_bytes())
    }

    #[test]
    fn a_topic_takes_messages_of_its_kind_only() {
        let sent = [
            ("NORMAL", "KEYS\u{1}k\u{2}"),
            ("FIFO", "__SHARDINGKEY\u{1}k\u{2}"),
            ("DELAY", "DELAY\u{1}3\u{2}"),
            ("DELAY", "TIMER_DELAY_MS\u{1}3\u{2}"),
            ("TRANSACTION", "TRAN_MSG\u{1}true\u{2}"),
        ];
        for expected in ["NORMAL", "FIFO", "DELAY", "TRANSACTION"] {
            for (kind, properties) in sent {
                let answer = checked(&topic("t", Some(expected)), properties);
                assert_eq!(answer.is_ok(), kind == expected, "{kind} in {expected}: {answer:?}");
            }
        }
        for (kind, properties) in sent {
            assert!(checked(&topic("t", Some("MIXED")), properties).is_ok());
            assert!(checked(&topic("%RETRY%g", None), properties).is_ok());
            assert_eq!(checked(&topic("t", None), properties).is_ok(), kind == "NORMAL");
        }
        let refused = checked(&topic("t", Some("DELAY")), "").expect_err("no delay");
        assert!(
            refused.to_string().contains("expected type is DELAY, but actual type is NORMAL"),
            "{refused}"
        );
    }
}
