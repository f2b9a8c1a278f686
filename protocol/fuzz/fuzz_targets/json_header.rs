#![no_main]
//! JSON headers, and the typed header of SEND, which is read off every one of them.

use bytes::BytesMut;
use folio_protocol::frame::json;
use folio_protocol::header::{Header, PullMessageHeader, SendMessageHeader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(frame) = json::decode(data) else { return };
    let mut out = BytesMut::new();
    json::encode(&frame, &mut out);
    assert_eq!(json::decode(&out).as_ref(), Ok(&frame));
    let _ = SendMessageHeader::from_ext(&frame.ext);
    let _ = PullMessageHeader::from_ext(&frame.ext);
});
