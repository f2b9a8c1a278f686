//! The question to a producer what became of its transaction (39), by whichever node its connection is at.
//!
//! Between nodes, after the kind byte (see `peers.rs`), big-endian: the length of the producer group's name (2 bytes), the name, and the
//! message as the producer is shown it. The answer is one byte: 0 asked, 1 no producer of the group here, 2 the transaction has ended.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::check::TransactionCheck;
use crate::broker::Broker;
use crate::clients::ProducerPlace;
use crate::peers;

/// How long another node may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

const ASKED: u8 = 0;
const NOBODY: u8 = 1;
const ENDED: u8 = 2;

/// What came of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Yes,
    /// No producer could be asked.
    No,
    Ended,
}

/// Asks one of these producers, the first that can be.
pub(super) async fn ask(
    broker: &Arc<Broker>,
    group: &str,
    message: Bytes,
    places: impl Iterator<Item = &ProducerPlace>,
) -> Asked {
    let Some(check) = TransactionCheck::of(message) else { return Asked::No };
    for place in places {
        let asked = match place {
            ProducerPlace::Here(connection) if !connection.is_open() => Asked::No,
            ProducerPlace::Here(connection) => {
                // transactions.I4: what ends it is applied, and told, after this.
                let state = broker.group.state();
                if state.transactions().get(group, check.position).is_none() {
                    return Asked::Ended;
                }
                connection.check_transaction(&check);
                Asked::Yes
            }
            ProducerPlace::Node(node) => by_node(broker, *node, group, &check.message).await,
        };
        if asked != Asked::No {
            return asked;
        }
    }
    Asked::No
}

async fn by_node(broker: &Broker, node: u64, group: &str, message: &Bytes) -> Asked {
    let mut request = BytesMut::with_capacity(3 + group.len() + message.len());
    request.put_u8(peers::CHECK_TRANSACTION);
    // A group's name is far shorter.
    request.put_u16(group.len() as u16);
    request.put_slice(group.as_bytes());
    request.put_slice(message);
    match broker.group.call(node, request.freeze(), CALL_TIMEOUT).await.as_deref() {
        Ok([ASKED]) => Asked::Yes,
        Ok([ENDED]) => Asked::Ended,
        _ => Asked::No,
    }
}

/// The other node's side.
pub(crate) fn serve(broker: &Broker, mut request: Bytes) -> Bytes {
    let answer = |code: &'static [u8; 1]| Bytes::from_static(code);
    let Ok(length) = request.try_get_u16() else { return Bytes::new() };
    if request.len() < usize::from(length) {
        return Bytes::new();
    }
    let group = request.split_to(usize::from(length));
    let Some((group, check)) = std::str::from_utf8(&group).ok().zip(TransactionCheck::of(request)) else {
        tracing::error!("a question about a transaction does not decode: do all nodes run one version?");
        return Bytes::new();
    };
    for connection in broker.clients.producers_here(group, broker.checks.turn()) {
        if broker.checks.is_ending(check.position) {
            return answer(&[ENDED]);
        }
        let state = broker.group.state();
        let is_known = broker.group.applied_position() > check.position;
        // transactions.I4
        if is_known && state.transactions().get(group, check.position).is_none() {
            return answer(&[ENDED]);
        }
        if connection.is_open() {
            connection.check_transaction(&check);
            return answer(&[ASKED]);
        }
    }
    answer(&[NOBODY])
}
