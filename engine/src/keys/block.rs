//! A block of a run: entries in order, with a check.
//!
//! | offset | bytes | field (integers little-endian) |
//! |---|---|---|
//! | 0 | 4 | crc32c of the run's first index, the block's number and bytes 4 to 4095 |
//! | 4 | 4 | entries, 1 to 255 |
//! | 8 | 8 | zero |
//! | 16 | 16 n | entries: hash, position |
//! | 16 + 16 n | to 4096 | zero |
//!
//! The check covers the place: a block of another run or of another number is none.

use super::entry::Entry;

/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 4096;
/// Entries of a block; only a run's last one has fewer.
pub(super) const BLOCK_ENTRIES: usize = (BLOCK_BYTES - HEAD_BYTES) / ENTRY_BYTES;

const HEAD_BYTES: usize = 16;
const ENTRY_BYTES: usize = 16;

/// The check of a block's bytes behind its check.
fn check(run: u64, number: u64, bytes: &[u8]) -> u32 {
    let place = [run.to_le_bytes(), number.to_le_bytes()];
    crc32c::crc32c_append(crc32c::crc32c(place.as_flattened()), bytes)
}

/// Fills in the first four bytes of a block, whatever its content.
pub(super) fn seal(run: u64, number: u64, block: &mut [u8; BLOCK_BYTES]) {
    let crc = check(run, number, &block[4..]);
    block[..4].copy_from_slice(&crc.to_le_bytes());
}

/// Whether a block is whole and in its place.
pub(super) fn is_whole(run: u64, number: u64, block: &[u8; BLOCK_BYTES]) -> bool {
    block[..4] == check(run, number, &block[4..]).to_le_bytes()
}

/// The block of these entries, [`BLOCK_ENTRIES`] at most.
pub(super) fn encode(run: u64, number: u64, entries: &[Entry]) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    block[4..8].copy_from_slice(&(entries.len() as u32).to_le_bytes());
    let places = block[HEAD_BYTES..].chunks_exact_mut(ENTRY_BYTES);
    for (place, entry) in places.zip(entries) {
        place[..8].copy_from_slice(&entry.hash.to_le_bytes());
        place[8..].copy_from_slice(&entry.position.to_le_bytes());
    }
    seal(run, number, &mut block);
    block
}

/// The entries of a block; none when it is damaged.
pub(super) fn decode(run: u64, number: u64, block: &[u8; BLOCK_BYTES]) -> Option<Vec<Entry>> {
    if !is_whole(run, number, block) {
        return None;
    }
    let count = usize::from(block[4]);
    let (words, _) = block[HEAD_BYTES..].as_chunks::<8>();
    let entries = words.chunks_exact(2).take(count);
    Some(
        entries
            .map(|entry| Entry { hash: u64::from_le_bytes(entry[0]), position: u64::from_le_bytes(entry[1]) })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let block = encode(3, 7, &[Entry { hash: 0x0102, position: 0x0304 }]);
        assert_eq!(
            block[4..32],
            [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(block[..4], [18, 55, 188, 52]);
    }

    #[test]
    fn a_block_is_read_in_its_place_only_and_no_flipped_bit_passes() {
        let entries: Vec<_> =
            (0..BLOCK_ENTRIES as u64).map(|n| Entry { hash: n << 40, position: n }).collect();
        let block = encode(3, 7, &entries);
        assert_eq!(decode(3, 7, &block), Some(entries));
        assert_eq!((decode(3, 8, &block), decode(4, 7, &block)), (None, None));
        for at in [0, 3, 4, 8, 16, 2000, 4095] {
            let mut flipped = block;
            flipped[at] ^= 4;
            assert_eq!(decode(3, 7, &flipped), None, "{at}");
        }
    }
}
