//! Memory that bytes of files are read into.
//!
//! Long reads get anonymous maps, which are used again: their pages need not be made and zeroed for each read. Anonymous
//! memory belongs to this process alone, so it can neither change nor fail under a reader (`reads.I1`).

use std::collections::VecDeque;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use memmap2::MmapMut;
use parking_lot::Mutex;

/// Shorter reads get memory of the heap. Maps are this long or twice as long, and so on, and [`MAP_BYTES_EXTRA`].
const MAP_BYTES_MIN: usize = 256 << 10;
/// What makes a map hold a record of a round length with its header.
const MAP_BYTES_EXTRA: usize = 4096;
/// Bytes of maps that are kept while none of their bytes is in use: those used last.
const IDLE_BYTES_MAX: usize = 8 << 20;

/// Maps to be used again; a clone hands out the same ones.
#[derive(Clone, Default)]
pub(crate) struct Buffers {
    idle: Arc<Mutex<Idle>>,
}

/// Maps that are not in use, the one that has waited longest first.
type Idle = VecDeque<MmapMut>;

/// Memory of at least the length asked for; what is in it is left from its last use.
pub(crate) struct Buffer {
    memory: Memory,
    length: usize,
}

enum Memory {
    Heap(Vec<u8>),
    Map(Lent),
}

/// A map that goes back where it came from.
struct Lent {
    /// Taken out when it is dropped only.
    map: Option<MmapMut>,
    home: Weak<Mutex<Idle>>,
}

impl Buffers {
    /// Memory for `length` bytes.
    pub(crate) fn take(&self, length: usize) -> io::Result<Buffer> {
        let memory = if length < MAP_BYTES_MIN {
            Memory::Heap(vec![0; length])
        } else {
            let bytes = length.saturating_sub(MAP_BYTES_EXTRA).next_power_of_two().max(MAP_BYTES_MIN);
            let bytes = bytes + MAP_BYTES_EXTRA;
            let idle = {
                let mut idle = self.idle.lock();
                let at = idle.iter().rposition(|map| map.len() == bytes);
                at.and_then(|at| idle.remove(at))
            };
            let map = idle.map_or_else(|| MmapMut::map_anon(bytes), Ok)?;
            Memory::Map(Lent { map: Some(map), home: Arc::downgrade(&self.idle) })
        };
        Ok(Buffer { memory, length })
    }
}

impl Buffer {
    /// Makes it bytes that many may share. It cannot be written to any more.
    pub(crate) fn freeze(self) -> Bytes {
        let Buffer { memory, length } = self;
        match memory {
            Memory::Heap(bytes) => Bytes::from(bytes),
            Memory::Map(map) => Bytes::from_owner(map).slice(..length),
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            Memory::Heap(bytes) => bytes,
            Memory::Map(map) => &map.as_ref()[..self.length],
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Heap(bytes) => bytes,
            Memory::Map(map) => &mut map.map.as_deref_mut().unwrap_or_default()[..self.length],
        }
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let (Some(map), Some(home)) = (self.map.take(), self.home.upgrade()) else { return };
        let mut idle = home.lock();
        idle.push_back(map);
        let mut held: usize = idle.iter().map(|map| map.len()).sum();
        // What is not asked for any more makes room for what is.
        while held > IDLE_BYTES_MAX
            && let Some(oldest) = idle.pop_front()
        {
            held -= oldest.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_buffer_is_used_again_once_its_last_reader_is_gone() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take(300_000).unwrap();
        assert_eq!(buffer.len(), 300_000);
        buffer.fill(7);
        let bytes = buffer.freeze();
        let (part, at) = (bytes.slice(1000..1010), bytes.as_ptr());
        drop(bytes);
        let other = buffers.take(300_000).unwrap();
        assert!(other.as_ptr() != at && part[..] == [7; 10], "reads.I1: it is not written while it is read");
        drop(part);
        assert_eq!(buffers.take(400_000).unwrap().as_ptr(), at, "of the same size");
    }

    #[test]
    fn what_is_kept_idle_is_bounded() {
        let buffers = Buffers::default();
        let held: Vec<Buffer> = (0..64).map(|_| buffers.take(1 << 20).unwrap()).collect();
        drop(held);
        assert_eq!(buffers.idle.lock().len(), IDLE_BYTES_MAX / ((1 << 20) + MAP_BYTES_EXTRA));
        let outlives = buffers.take(1 << 20).unwrap().freeze();
        drop(buffers);
        assert_eq!(outlives.len(), 1 << 20);
    }

    #[test]
    fn maps_of_a_length_that_is_not_asked_for_any_more_make_room() {
        let buffers = Buffers::default();
        drop((0..8).map(|_| buffers.take(1 << 20).unwrap()).collect::<Vec<_>>());
        let at = buffers.take(300_000).unwrap().as_ptr();
        assert_eq!(buffers.take(300_000).unwrap().as_ptr(), at);
        let idle: usize = buffers.idle.lock().iter().map(|map| map.len()).sum();
        assert!(idle <= IDLE_BYTES_MAX, "{idle}");
    }

    #[test]
    fn a_record_of_a_round_length_fits_with_its_header() {
        for length in [MAP_BYTES_MIN, MAP_BYTES_MIN + 1, 1 << 20, (1 << 20) + 388, (1 << 20) + 5000] {
            let buffer = Buffers::default().take(length).unwrap();
            let Memory::Map(Lent { map: Some(map), .. }) = &buffer.memory else { unreachable!() };
            assert!(map.len() >= length && map.len() <= length.next_power_of_two().max(length) + 4096);
        }
    }

    #[test]
    fn a_short_one_is_as_long_as_asked_for() {
        let buffers = Buffers::default();
        assert_eq!(buffers.take(100).unwrap().freeze().len(), 100);
    }
}
