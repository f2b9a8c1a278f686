//! What tests of several loads need.

use bytes::{Bytes, BytesMut};
use folio_protocol::message::NewMessage;

/// A stored message of the topic `t`.
pub(super) fn stored(queue_id: u32, born_ms: i64, properties: String) -> Vec<u8> {
    let host = ([127, 0, 0, 1], 9).into();
    let message = NewMessage {
        topic: "t".into(),
        queue_id,
        flag: 0,
        sys_flag: 0,
        born_timestamp: born_ms,
        born_host: host,
        store_timestamp: 2,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: Bytes::from_static(b"body"),
        properties: properties.into(),
    };
    let mut out = BytesMut::new();
    message.encode(&mut out).unwrap();
    out.to_vec()
}
