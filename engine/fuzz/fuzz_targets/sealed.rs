//! Puts the checksums that no mutation finds into what a target was given, so that it gets behind them.

const HEADER_BYTES: usize = 64;
const SLOT_BYTES: usize = 4096;

fn put(bytes: &mut [u8], at: usize, crc: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

/// Records back to back.
pub fn records(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let (mut at, mut before) = (0, 0);
    while let Some(rest) = out.get_mut(at..).filter(|rest| rest.len() >= HEADER_BYTES) {
        let length = u32::from_le_bytes([rest[8], rest[9], rest[10], rest[11]]) as usize;
        let end = length.clamp(HEADER_BYTES, rest.len());
        put(rest, 40, crc32c::crc32c(&rest[HEADER_BYTES..end]));
        put(rest, 44, before);
        before = crc32c::crc32c(&rest[..60]);
        put(rest, 60, before);
        at += end;
    }
    out
}

/// The body of a checkpoint, in its envelope.
pub fn checkpoint(body: &[u8]) -> Vec<u8> {
    let mut out = b"FoCP\x01\0\0\0".to_vec();
    out.extend((body.len() as u64).to_le_bytes());
    out.extend(crc32c::crc32c(body).to_le_bytes());
    out.extend(crc32c::crc32c(&out).to_le_bytes());
    out.extend(body);
    out
}

/// The first slot of two: sequence, length and value are given.
pub fn slot(magic: &[u8; 4], bytes: &[u8]) -> Vec<u8> {
    let mut out = [&magic[..], bytes].concat();
    out.resize(out.len().clamp(20, SLOT_BYTES), 0);
    let length = u32::from_le_bytes([out[12], out[13], out[14], out[15]]) as usize;
    if let Some(covered) = out.get(..16 + length) {
        let crc = crc32c::crc32c(covered);
        out.resize(out.len().max(20 + length), 0);
        put(&mut out, 16 + length, crc);
    }
    out.resize(2 * SLOT_BYTES, 0);
    out
}

/// The file `start`.
pub fn start(bytes: &[u8]) -> Vec<u8> {
    let mut out = [b"FoSt\x01\0\0\0", bytes].concat();
    out.resize(52, 0);
    let crc = crc32c::crc32c(&out[..48]);
    put(&mut out, 48, crc);
    out
}
