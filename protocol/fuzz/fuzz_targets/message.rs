#![no_main]
//! Stored messages: parsing, peeking and stamping must agree.

use folio_protocol::message::{Messages, peek, stamp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for item in Messages::new(data) {
        let Ok((at, message)) = item else { break };
        let mut bytes = message.bytes().to_vec();
        assert_eq!(&data[at..at + message.total_size()], bytes);
        let _ = (message.born_host(), message.store_host(), message.tags_code(), message.verify_body_crc());
        stamp(&mut bytes, 1, 2);
        let route = peek(&bytes).expect("parsed before");
        assert_eq!(route.topic, message.topic().as_bytes());
        assert_eq!((route.queue_offset, route.physical_offset), (1, 2));
    }
});
