#![no_main]
//! What is in votes, records, checkpoints and snapshots, its checksums taken for right.

use folio_raft::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    fuzz::stored(data);
    fuzz::state(data);
});
