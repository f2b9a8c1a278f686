//! What who is no operator may change of a topic or a group that exists (`admin.I3`).
//!
//! Creating and changing are one request to RocketMQ. A topic with fewer queues loses their messages, and one without a
//! permission bit its senders or consumers; a group may be told to drop what fails, or to stop. Clients that create what
//! they use ask for what is there already, or for more of it.

use folio_state::{ConsumerGroup, Topic};

use crate::error::BrokerError;

/// Refuses a change of a topic that takes queues or permissions away.
pub(crate) fn check_topic_change(before: Option<&Topic>, after: &Topic) -> Result<(), BrokerError> {
    let Some(before) = before else { return Ok(()) };
    let takes_away = after.read_queues < before.read_queues
        || after.write_queues < before.write_queues
        || before.perm & !after.perm != 0;
    if takes_away {
        Err(refusal(&format!("taking queues or permissions from topic[{}]", after.name)))
    } else {
        Ok(())
    }
}

/// Refuses a change of a group.
pub(crate) fn check_group_change(
    before: Option<&ConsumerGroup>,
    after: &ConsumerGroup,
) -> Result<(), BrokerError> {
    match before {
        Some(before) if before != after => Err(refusal(&format!("changing group[{}]", after.name))),
        _ => Ok(()),
    }
}

fn refusal(what: &str) -> BrokerError {
    BrokerError::NoPermission(format!(
        "{what} is accepted from where administrative requests are: the machine that the node runs on, the node's port \
         `listen.admin`, and the networks in `listen.admin_from` (keys of the node's configuration)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_i3_a_topic_may_grow_and_neither_shrink_nor_lose_a_permission() {
        let before = Topic::new("t", 8);
        let may = |change: fn(&mut Topic)| {
            let mut after = before.clone();
            change(&mut after);
            check_topic_change(Some(&before), &after).is_ok()
        };
        assert!(check_topic_change(None, &before).is_ok(), "it is created");
        assert!(may(|_| {}) && may(|topic| topic.read_queues = 9) && may(|topic| topic.perm |= 1));
        assert!(!may(|topic| topic.read_queues = 7));
        assert!(!may(|topic| topic.write_queues = 7));
        assert!(!may(|topic| topic.perm = 4) && !may(|topic| topic.perm = 3));
    }

    #[test]
    fn admin_i3_a_group_may_be_created_again_and_not_changed() {
        let before = ConsumerGroup::new("g");
        assert!(check_group_change(None, &before).is_ok());
        assert!(check_group_change(Some(&before), &before.clone()).is_ok());
        let after = ConsumerGroup { retry_queues: 0, ..before.clone() };
        assert!(check_group_change(Some(&before), &after).is_err(), "what fails would be dropped");
        let after = ConsumerGroup { consume_enable: false, ..before.clone() };
        assert!(check_group_change(Some(&before), &after).is_err());
    }
}
