//! What tests of several services share.

use crate::clients::Addresses;
use crate::error::BrokerError;
use crate::identity::Identity;

/// A node's identity.
pub(crate) fn identity() -> Identity {
    Identity {
        cluster: "c1".to_owned(),
        broker_name: "b1".to_owned(),
        node_id: 1,
        store_host: ([127, 0, 0, 1], 10911).into(),
        addresses: Addresses { broker: "127.0.0.1:10911".to_owned(), namesrv: "127.0.0.1:9876".to_owned() },
    }
}

/// Which error it is: the name of its variant.
pub(crate) fn kind(error: &BrokerError) -> String {
    let text = format!("{error:?}");
    text.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default().to_owned()
}
