#![no_main]
//! What peers send. The first byte chooses: a stream of frames, one frame of a kind, or records with right checksums.

use folio_raft::fuzz;
use libfuzzer_sys::fuzz_target;

const HEADER_BYTES: usize = 64;

/// Puts the checksums that no mutation finds into each record.
fn sealed(records: &[u8]) -> Vec<u8> {
    let mut out = records.to_vec();
    let mut at = 0;
    while let Some(rest) = out.get_mut(at..).filter(|rest| rest.len() >= HEADER_BYTES) {
        let length = u32::from_le_bytes([rest[8], rest[9], rest[10], rest[11]]) as usize;
        let end = length.clamp(HEADER_BYTES, rest.len());
        let payload_crc = crc32c::crc32c(&rest[HEADER_BYTES..end]);
        rest[40..44].copy_from_slice(&payload_crc.to_le_bytes());
        let crc = crc32c::crc32c(&rest[..60]);
        rest[60..64].copy_from_slice(&crc.to_le_bytes());
        at += end;
    }
    out
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    match choice {
        0 => fuzz::frames(rest),
        1 => fuzz::append(&sealed(rest)),
        kind => {
            let mut frame = (9 + rest.len() as u32).to_le_bytes().to_vec();
            frame.push(*kind);
            frame.extend([7; 8]);
            frame.extend(rest);
            fuzz::frames(&frame);
        }
    }
});
