#![no_main]
//! Records off a stream, as they are and with right checksums: what parses is whole, keeps its bytes, and says where the
//! next one is.

#[expect(dead_code, reason = "each target uses a part of it")]
mod sealed;

use bytes::Bytes;
use folio_engine::record::{Record, RecordHeader};
use libfuzzer_sys::fuzz_target;

fn parse(mut rest: Bytes) {
    while let Ok(header) = RecordHeader::parse(&rest) {
        let length = header.length as usize;
        if length > rest.len() {
            return;
        }
        let frame = rest.split_to(length);
        let Ok(record) = Record::parse(frame.clone()) else { return };
        assert_eq!(record.frame(), &frame);
        assert_eq!((record.id(), record.position()), (header.id(), header.position));
        assert_eq!(record.payload().len() + folio_engine::HEADER_BYTES, length);
        assert!(record.messages().len() <= record.payload().len());
        let commands: usize = record.commands().map(|command| command.len()).sum();
        assert!(commands + record.messages().len() <= record.payload().len());
    }
}

fuzz_target!(|data: &[u8]| {
    parse(Bytes::copy_from_slice(data));
    parse(sealed::records(data).into());
});
