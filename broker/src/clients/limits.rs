//! How much one client may register, and all clients of a node together.
//!
//! Whatever is registered is kept by every node, and is told to each of them once more when it starts again. A heartbeat
//! beyond a limit is refused as a whole, before anything of it is registered.
//!
//! - `clients.I4`: a node's part of the table has at most [`TABLE_BYTES_MAX`] bytes when all of it is told, and what came by
//!   one connection at most an eighth of that. Who is registered stays; who would come beyond it is refused.

use folio_protocol::body::{ConsumerData, HeartbeatData};
use folio_protocol::limits::{CLIENT_ID_BYTES_MAX, EXPRESSION_BYTES_MAX, GROUP_BYTES_MAX};
use folio_protocol::names;
use folio_state::bounds::at_most;

use crate::error::BrokerError;

/// A heartbeat's body: a thousand subscriptions have 300 kB.
const HEARTBEAT_BYTES_MAX: usize = 1 << 20;
/// Consumer groups, and as many producer groups, of one client.
const GROUPS_MAX: usize = 1_024;
/// Subscriptions of one client in one group.
const SUBSCRIPTIONS_MAX: usize = 4_096;
/// The registrations of one node, as they are told to the others: some 40,000.
pub(super) const TABLE_BYTES_MAX: usize = 16 << 20;
/// Of these, what came by one connection.
pub(super) const CONNECTION_BYTES_MAX: usize = TABLE_BYTES_MAX / 8;

/// Checks a heartbeat before it is decoded.
pub fn check_length(body: &[u8]) -> Result<(), BrokerError> {
    Ok(at_most("bytes of a heartbeat", body.len(), HEARTBEAT_BYTES_MAX)?)
}

/// Checks what a heartbeat says.
pub fn check(data: &HeartbeatData) -> Result<(), BrokerError> {
    if data.client_id.is_empty() {
        return Err(BrokerError::InvalidParameter("a heartbeat needs clientID".to_owned()));
    }
    at_most("bytes of a client's id", data.client_id.len(), CLIENT_ID_BYTES_MAX)?;
    at_most("consumer groups of a client", data.consumer_data_set.len(), GROUPS_MAX)?;
    at_most("producer groups of a client", data.producer_data_set.len(), GROUPS_MAX)?;
    data.consumer_data_set.iter().try_for_each(check_consumer)?;
    let mut producers = data.producer_data_set.iter();
    producers.try_for_each(|producer| {
        Ok(at_most("bytes of a group's name", producer.group_name.len(), GROUP_BYTES_MAX)?)
    })
}

fn check_consumer(consumer: &ConsumerData) -> Result<(), BrokerError> {
    names::check_group(&consumer.group_name)?;
    let subscriptions = &consumer.subscription_data_set;
    at_most("subscriptions of a group", subscriptions.len(), SUBSCRIPTIONS_MAX)?;
    subscriptions.iter().try_for_each(|subscription| {
        names::check_topic(&subscription.topic)?;
        Ok(at_most("bytes of an expression", subscription.sub_string.len(), EXPRESSION_BYTES_MAX)?)
    })
}

#[cfg(test)]
mod tests {
    use folio_protocol::body::{ProducerData, SubscriptionData};

    use super::*;

    fn heartbeat(groups: usize) -> HeartbeatData {
        let subscription = SubscriptionData { topic: "t".to_owned(), ..SubscriptionData::default() };
        let consumer = |number| ConsumerData {
            group_name: format!("g{number}"),
            subscription_data_set: vec![subscription.clone()],
            ..ConsumerData::default()
        };
        let producers = vec![ProducerData { group_name: "p".to_owned() }];
        HeartbeatData {
            client_id: "c".to_owned(),
            consumer_data_set: (0..groups).map(consumer).collect(),
            producer_data_set: producers,
            ..HeartbeatData::default()
        }
    }

    fn refused(change: impl FnOnce(&mut HeartbeatData)) -> String {
        let mut data = heartbeat(1);
        change(&mut data);
        check(&data).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn a_heartbeat_with_thirty_thousand_groups_was_registered() {
        assert_eq!(check(&heartbeat(GROUPS_MAX)), Ok(()));
        assert!(check(&heartbeat(30_000)).is_err());
        assert!(check_length(&vec![b'a'; HEARTBEAT_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn each_part_of_a_heartbeat_is_checked_before_it_is_registered() {
        assert_eq!(refused(|_| {}), "");
        assert!(refused(|data| data.client_id = "c".repeat(256)).contains("255"));
        assert!(refused(|data| data.client_id.clear()).contains("clientID"));
        assert!(refused(|data| data.consumer_data_set[0].group_name = "a.b".to_owned()).contains("group"));
        assert!(refused(|data| data.producer_data_set[0].group_name = "p".repeat(121)).contains("120"));
        let subscription = |change: fn(&mut SubscriptionData)| {
            refused(|data| change(&mut data.consumer_data_set[0].subscription_data_set[0]))
        };
        assert!(subscription(|one| one.topic = "t".repeat(128)).contains("topic"));
        assert!(subscription(|one| one.sub_string = "a||".repeat(1 << 20)).contains("16384"));
        let many = |data: &mut HeartbeatData| {
            let subscriptions = &mut data.consumer_data_set[0].subscription_data_set;
            *subscriptions = vec![subscriptions[0].clone(); SUBSCRIPTIONS_MAX + 1];
        };
        assert!(refused(many).contains("4096"));
    }
}
