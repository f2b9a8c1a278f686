#![no_main]
//! Checkpoints, as files and as bodies in a right envelope: what decodes encodes, and decodes to the same.

#[expect(dead_code, reason = "each target uses a part of it")]
mod sealed;

use bytes::Bytes;
use folio_engine::Checkpoint;
use libfuzzer_sys::fuzz_target;

fn decode(file: Bytes) {
    if let Ok(checkpoint) = Checkpoint::decode(&file) {
        let again = Checkpoint::decode(&Bytes::from(checkpoint.encode()));
        assert_eq!(again.as_ref(), Ok(&checkpoint));
    }
}

fuzz_target!(|data: &[u8]| {
    decode(Bytes::copy_from_slice(data));
    decode(sealed::checkpoint(data).into());
});
