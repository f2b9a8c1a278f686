#![no_main]
//! Properties: every property found in place is found by the owned form, and comes back.

use folio_protocol::properties::{Properties, get, iter};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let parsed = Properties::parse(data);
    assert_eq!(Properties::parse(&parsed.encode()), parsed);
    for (name, _) in iter(data) {
        if std::str::from_utf8(data).is_ok() {
            assert_eq!(get(data, name), parsed.get(name));
        }
    }
});
