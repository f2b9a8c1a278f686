#![no_main]
//! Batches: what decodes must encode to the same parts.

use bytes::BytesMut;
use folio_protocol::batch::{BatchItems, append};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(items) = BatchItems::new(data).collect::<Result<Vec<_>, _>>() else { return };
    let mut out = BytesMut::new();
    for item in &items {
        assert_eq!(&data[item.body_range.clone()], item.body);
        append(&mut out, item.flag, item.body, item.properties).expect("its lengths fitted");
    }
    assert_eq!(out.len(), data.len());
    let again: Vec<_> = BatchItems::new(&out).collect::<Result<_, _>>().expect("own bytes");
    assert_eq!(again, items);
});
