//! Serves what other brokers of the group ask this one, see `peers.rs`.

use std::sync::Arc;

use bytes::Bytes;

use crate::broker::Broker;
use crate::clients::Notice;
use crate::peers::{APPLIED, CHECK_TRANSACTION, CLIENTS, ENSURE_GROUP, KNOWS};
use crate::{applied, ask, groups, transactions};

/// The answer to a request of this kind from node `from`, without its kind byte; nothing of a kind that is not the broker's.
pub async fn serve(broker: &Arc<Broker>, from: u64, kind: u8, request: Bytes) -> Option<Bytes> {
    match kind {
        CLIENTS => {
            let (notices, heard) = broker.clients.heard(from, &request);
            Notice::tell(notices);
            Some(heard)
        }
        KNOWS => Some(ask::serve(broker, request).await),
        ENSURE_GROUP => Some(groups::serve_ensure(broker, &request).await),
        CHECK_TRANSACTION => Some(transactions::serve(broker, request)),
        APPLIED => Some(applied::serve(broker, request).await),
        _ => None,
    }
}
