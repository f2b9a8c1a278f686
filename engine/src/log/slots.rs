//! A small value on disk that changes often: two slots in one file, of which one is always whole.
//!
//! Three values use it: the vote, the durable mark and the log's start. Who calls it decides when to sync. It never guesses: a file with no
//! whole slot is an error.
//!
//! The file is 8 KiB, a slot every 4 KiB (so that no sector is shared). A slot, integers little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic, by the kind of value |
//! | 4 | 8 | sequence; the whole slot with the higher one counts |
//! | 12 | 4 | length of the value, `n` |
//! | 16 | n | value |
//! | 16 + n | 4 | crc32c of all before |
//!
//! Invariants
//! - `slots.I1` Between two syncs only one slot is written, the other one holds what was synced last.
//! - `slots.I2` A value that must never be forgotten (the vote) stands in both slots before anybody relies on it.
//! - `slots.I3` Once the file is there, a value is written over blocks that the file has: no full disk refuses it.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::error::{IoContext, OpenError};
use crate::disk::{Disk, DiskFile, OpenMode, is_lost, read_again_if_lost, write_atomically};

const SLOT_BYTES: usize = 4096;
/// Bytes of the file.
pub(super) const FILE_BYTES: u64 = 2 * SLOT_BYTES as u64;
const HEAD_BYTES: usize = 16;
/// The longest value.
pub(super) const VALUE_BYTES_MAX: usize = SLOT_BYTES - HEAD_BYTES - 4;

/// Sequences above it are never counted up to: a slot that has one was not written here.
const SEQUENCE_MAX: u64 = u64::MAX / 2;

/// Two slots, the newest value known to the caller.
pub(super) struct Slots {
    file: Arc<dyn DiskFile>,
    magic: [u8; 4],
    sequence: u64,
    /// The slot to write next.
    active: u64,
}

impl Slots {
    /// Opens the file and reads the newest value, which is durable then; creates the file with an empty value when it is
    /// missing. A slot that the device has lost might hold the newer value: that is a bad copy only where `in_both`, a value
    /// stands in both slots before anybody relies on it.
    pub(super) fn open(
        disk: &dyn Disk,
        path: &Path,
        magic: [u8; 4],
        in_both: bool,
    ) -> Result<(Slots, Bytes), OpenError> {
        if !disk.exists(path).context("look for", path)? {
            Slots::create(disk, path, magic, &[]).context("create", path)?;
        }
        let file = disk.open(path, OpenMode::ReadWrite).context("open", path)?;
        let mut newest: Option<(u64, u64, Bytes)> = None;
        for slot in [0, 1] {
            let mut bytes = vec![0; SLOT_BYTES];
            let read = match read_again_if_lost(&*file, &mut bytes, slot * SLOT_BYTES as u64) {
                Err(error) if is_lost(&error) && in_both => 0,
                Err(error) if is_lost(&error) => {
                    let reason = format!("one copy cannot be read: {error}");
                    return Err(OpenError::StateFile { file: path.to_owned(), reason });
                }
                read => read.context("read", path)?,
            };
            if let Some((sequence, value)) = decode(magic, &bytes[..read])
                && newest.as_ref().is_none_or(|(newer, ..)| *newer < sequence)
            {
                newest = Some((sequence, slot, value));
            }
        }
        let Some((sequence, slot, value)) = newest else {
            return Err(OpenError::StateFile { file: path.to_owned(), reason: "both copies are bad".into() });
        };
        // What is read may be in the page cache only: a killed process left it there before its sync, or after a sync
        // that failed, which the next one does not report again. Whoever opens the file will rely on it.
        let again = encode(magic, sequence, &value);
        file.write_all_at(&[IoSlice::new(&again)], slot * SLOT_BYTES as u64).context("write", path)?;
        file.sync_data().context("sync", path)?;
        let mut slots = Slots { file, magic, sequence, active: 1 - slot };
        // The other slot, torn, rotten or older: it must not come back if this one is damaged.
        slots.write(&value).and_then(|()| slots.sync()).context("write", path)?;
        Ok((slots, value))
    }

    /// Makes the file with a value in both slots, durably, in place of whatever is at `path`.
    pub(super) fn create(disk: &dyn Disk, path: &Path, magic: [u8; 4], value: &[u8]) -> io::Result<()> {
        let both = [encode(magic, 1, value), encode(magic, 2, value)].concat();
        write_atomically(disk, path, &both)
    }

    /// Writes a value over the slot that is not the last synced one; not durable yet.
    pub(super) fn write(&mut self, value: &[u8]) -> io::Result<()> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the value is too long for its slot"));
        }
        self.sequence += 1;
        let bytes = encode(self.magic, self.sequence, value);
        self.file.write_all_at(&[IoSlice::new(&bytes)], self.active * SLOT_BYTES as u64)
    }

    /// Writes a value into both slots, one after the other, each durable before the next step: from then on the file
    /// survives damage to either slot without an older value coming back (`slots.I2`).
    pub(super) fn write_both(&mut self, value: &[u8]) -> io::Result<()> {
        for _ in 0..2 {
            self.write(value)?;
            self.sync()?;
        }
        Ok(())
    }

    /// Makes the last written value durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.active = 1 - self.active;
        Ok(())
    }
}

fn encode(magic: [u8; 4], sequence: u64, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SLOT_BYTES);
    bytes.extend(magic);
    bytes.extend(sequence.to_le_bytes());
    bytes.extend((value.len() as u32).to_le_bytes());
    bytes.extend(value);
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes.resize(SLOT_BYTES, 0);
    bytes
}

fn decode(magic: [u8; 4], bytes: &[u8]) -> Option<(u64, Bytes)> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let length = u32::from_le_bytes(head[12..16].try_into().ok()?) as usize;
    if head[..4] != magic || length > VALUE_BYTES_MAX {
        return None;
    }
    let crc = u32::from_le_bytes(*rest.get(length..)?.first_chunk()?);
    if crc32c::crc32c(&bytes[..HEAD_BYTES + length]) != crc {
        return None;
    }
    let sequence = u64::from_le_bytes(head[4..12].try_into().ok()?);
    if sequence > SEQUENCE_MAX {
        return None;
    }
    Some((sequence, Bytes::copy_from_slice(&rest[..length])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    const MAGIC: [u8; 4] = *b"TEST";

    fn open(path: &Path) -> Result<(Slots, Bytes), OpenError> {
        Slots::open(&RealDisk, path, MAGIC, true)
    }

    #[test]
    fn the_newest_value_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let (mut slots, value) = open(&path).unwrap();
        assert!(value.is_empty());
        for value in [&b"one"[..], b"two", b"three is longer", b"4"] {
            slots.write(value).unwrap();
            slots.sync().unwrap();
            assert_eq!(open(&path).unwrap().1, value);
        }
    }

    #[test]
    fn a_torn_slot_falls_back_to_the_last_synced_value() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let (mut slots, _) = open(&path).unwrap();
        slots.write(b"synced").unwrap();
        slots.sync().unwrap();
        slots.write(b"lost").unwrap();
        slots.write(b"torn").unwrap();
        let at = slots.active as usize * SLOT_BYTES + HEAD_BYTES;
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at + 2] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(open(&path).unwrap().1[..], *b"synced", "slots.I1");
        bytes[SLOT_BYTES - at % SLOT_BYTES + at - SLOT_BYTES] ^= 1;
        let other = (1 - slots.active) as usize * SLOT_BYTES;
        bytes[other] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let refused = open(&path).err().unwrap().to_string();
        assert!(
            refused.contains("both copies are bad") && refused.contains(path.to_str().unwrap()),
            "{refused}"
        );
    }

    /// Found by fuzzing.
    #[test]
    fn t90_the_next_sequence_after_the_last_number_there_is_panicked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, [encode(MAGIC, u64::MAX, b"never"), encode(MAGIC, 7, b"value")].concat())
            .unwrap();
        assert_eq!(open(&path).unwrap().1[..], *b"value");
        std::fs::write(&path, [encode(MAGIC, u64::MAX, b"never"), vec![0; SLOT_BYTES]].concat()).unwrap();
        assert!(open(&path).is_err());
    }

    #[test]
    fn a_value_in_both_slots_survives_damage_to_either_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let (mut slots, _) = open(&path).unwrap();
        slots.write_both(b"first vote").unwrap();
        slots.write_both(b"second vote").unwrap();
        let whole = std::fs::read(&path).unwrap();
        for slot in [0, SLOT_BYTES] {
            for damage in [HEAD_BYTES + 3, 5] {
                let mut bytes = whole.clone();
                bytes[slot + damage] ^= 0x40;
                std::fs::write(&path, &bytes).unwrap();
                assert_eq!(open(&path).unwrap().1[..], *b"second vote", "slots.I2");
            }
            let mut bytes = whole.clone();
            bytes[slot..slot + SLOT_BYTES].fill(0);
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(open(&path).unwrap().1[..], *b"second vote", "slots.I2: a page of zeroes");
        }
    }
}
