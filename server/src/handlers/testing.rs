//! What tests of several handlers share.

use folio_broker::clients::Addresses;
use folio_broker::identity::Identity;

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
