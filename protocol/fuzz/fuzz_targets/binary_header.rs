#![no_main]
//! Binary headers; what decodes must encode, and decode to the same again.

use bytes::BytesMut;
use folio_protocol::frame::binary;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(frame) = binary::decode(data) else { return };
    let mut out = BytesMut::new();
    assert!(binary::encode(&frame, &mut out));
    assert_eq!(binary::decode(&out).as_ref(), Ok(&frame));
});
