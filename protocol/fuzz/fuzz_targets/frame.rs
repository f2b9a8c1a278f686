#![no_main]
//! Whole frames off a stream; what decodes must encode, and decode to the same again.

use bytes::BytesMut;
use folio_protocol::frame::Frame;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut source = BytesMut::from(data);
    while let Ok(Some(frame)) = Frame::decode(&mut source) {
        let mut out = BytesMut::new();
        // Escapes can make a frame longer than it may be.
        if frame.encode(&mut out).is_ok() {
            let again = Frame::decode(&mut out).expect("own bytes").expect("whole");
            assert_eq!(again, frame);
        }
    }
});
