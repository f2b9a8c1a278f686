//! Bytes of several places of the log, read together: the messages of one answer.
//!
//! What is in memory is shared with it, and so is a part of a run that is not much smaller than the run. Smaller
//! parts are copied, one behind the other into one buffer: what a slow client has not taken yet shall not keep much more
//! in memory than it is.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::error::ReadError;
use super::reader::{Reader, Source};
use super::shared::Shared;
use super::verified_cache::{Found, RUN_BYTES, VerifiedRun};
use super::view::Live;
use crate::record::Record;

/// Bytes that are a smaller part of their run are copied out of it.
const SHARE_MIN: usize = 4;

/// Bytes of one record: where they begin in the log, and how many they are.
pub type Span = (u64, usize);

/// Which of several spans could not be read, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ungathered {
    /// Its number, from zero.
    pub span: usize,
    /// Why it could not be read.
    pub error: ReadError,
}

/// Where the bytes of a span are.
enum Place {
    Memory(Bytes),
    Run(Arc<VerifiedRun>, Range<usize>),
}

/// A part of the log that is in files, as a view showed it.
struct Stored {
    live: Live,
    epoch: u64,
    /// Nothing behind this position is in the files for certain.
    limit: u64,
}

/// See `CommitLog::gather`.
pub(super) fn gather(shared: &Shared, spans: &[Span]) -> Result<Vec<Bytes>, Ungathered> {
    let mut places: Vec<Place> = Vec::with_capacity(spans.len());
    match find_all(shared, spans, &mut places) {
        Ok(()) => Ok(pieces(&places)),
        Err(error) => Err(Ungathered { span: places.len(), error }),
    }
}

/// Adds the place of each span, up to one that cannot be read.
fn find_all(shared: &Shared, spans: &[Span], places: &mut Vec<Place>) -> Result<(), ReadError> {
    while let Some((position, length)) = spans.get(places.len()).copied() {
        if let Some(Place::Run(run, _)) = places.last()
            && let Some(Found::Bytes(range)) = run.find(position, length)
        {
            let place = Place::Run(run.clone(), range);
            places.push(place);
            continue;
        }
        let Some(stored) = in_memory(shared, spans, places)? else { return Ok(()) };
        let (position, length) = spans[places.len()];
        let read = || run(shared, &stored, position);
        match shared.verified_cache.get_or_read(stored.epoch, position, length, read)? {
            (run, Some(Found::Bytes(range))) => places.push(Place::Run(run, range)),
            (_, Some(Found::Crossing(end))) => return Err(ReadError::Crossing { position, end }),
            (_, None) => return Err(ReadError::Crossing { position, end: position }),
        }
    }
    Ok(())
}

/// Adds the spans that are in memory, up to one that is not: what that is to be read of.
fn in_memory(shared: &Shared, spans: &[Span], places: &mut Vec<Place>) -> Result<Option<Stored>, ReadError> {
    let view = shared.view.lock();
    while let Some((position, length)) = spans.get(places.len()).copied() {
        if position < view.start.position {
            return Err(ReadError::Purged { asked: position, first: view.start.position });
        }
        let beyond = ReadError::Beyond { asked: position, end: view.end };
        if position.checked_add(length as u64).is_none_or(|end| end > view.end) {
            return Err(beyond);
        }
        if let Some(bytes) = view.cache.slice(position, length) {
            places.push(Place::Memory(bytes));
            continue;
        }
        if view.written < view.appended && position + length as u64 > view.cache.first_position() {
            // More than one record, and not all of it in the files yet.
            return Err(beyond);
        }
        let live = view.live_at(position, shared.config.segment_bytes).ok_or(beyond)?;
        return Ok(Some(Stored { live, epoch: view.epoch, limit: view.in_files() }));
    }
    Ok(None)
}

/// The bytes of all places in order, in as few pieces as their memory allows.
fn pieces(places: &[Place]) -> Vec<Bytes> {
    let together = |one: &Place, next: &Place| match (one, next) {
        (Place::Run(one, _), Place::Run(next, _)) => Arc::ptr_eq(one, next),
        _ => false,
    };
    let groups = || places.chunk_by(together);
    let to_copy = groups().filter_map(small_part).map(|(_, taken)| taken).sum();
    let (mut pieces, mut copies) = (Vec::with_capacity(places.len()), BytesMut::with_capacity(to_copy));
    for group in groups() {
        if let Some((run, _)) = small_part(group) {
            let ranges = group.iter().filter_map(Place::range);
            ranges.for_each(|range| copies.extend_from_slice(&run.bytes()[range]));
            continue;
        }
        if !copies.is_empty() {
            pieces.push(copies.split().freeze());
        }
        pieces.extend(group.iter().map(Place::share));
    }
    if !copies.is_empty() {
        pieces.push(copies.freeze());
    }
    pieces
}

/// The run that all of `group` lie in and how much they are of it, where that is so little that it is copied.
fn small_part(group: &[Place]) -> Option<(&VerifiedRun, usize)> {
    let Some(Place::Run(run, _)) = group.first() else { return None };
    let taken = group.iter().filter_map(Place::range).map(|range| range.len()).sum();
    (taken * SHARE_MIN < run.cost()).then_some((&**run, taken))
}

impl Place {
    fn range(&self) -> Option<Range<usize>> {
        match self {
            Place::Memory(_) => None,
            Place::Run(_, range) => Some(range.clone()),
        }
    }

    fn share(&self) -> Bytes {
        match self {
            Place::Memory(bytes) => bytes.clone(),
            Place::Run(run, range) => run.bytes().slice(range.clone()),
        }
    }
}

/// The whole records around `position` and behind it, as many as are read together.
fn run(shared: &Shared, stored: &Stored, position: u64) -> Result<VerifiedRun, ReadError> {
    if let Some(run) = next_run(shared, stored, position) {
        return Ok(run);
    }
    let mut reader = Reader::new(shared, &stored.live.segment, Source::Anywhere, stored.limit).in_strides();
    let first = reader.around(position, stored.live.first);
    let first = first.and_then(|header| {
        let ahead = RUN_BYTES.max(header.length as usize);
        reader.record(header.position, header.index, ahead)
    });
    let first = first.map_err(|error| shared.noted(stored.epoch, error))?;
    Ok(with_what_follows(&reader, first, stored.epoch))
}

/// The run right behind one that is remembered or at the segment's start, if it holds `position`. So readers of
/// several queues, each of which comes to its own next message, leave no gaps that the others would read on their own.
fn next_run(shared: &Shared, stored: &Stored, position: u64) -> Option<VerifiedRun> {
    let (segment, first) = (&stored.live.segment, stored.live.first);
    let behind = shared.verified_cache.end_before(stored.epoch, position);
    let behind = behind.filter(|end| end.1 > first.1 && end.1 < segment.base + shared.config.segment_bytes);
    let (index, at) = behind.unwrap_or(first);
    if !(at..at + RUN_BYTES as u64).contains(&position) {
        return None;
    }
    let mut reader = Reader::new(shared, segment, Source::Anywhere, stored.limit);
    // What is damaged on the way is found where it is asked for.
    let length = reader.header(at, index).ok()?.length as usize;
    let first = reader.record(at, index, RUN_BYTES.max(length)).ok()?;
    segment.note(index, at);
    let run = with_what_follows(&reader, first, stored.epoch);
    (position < run.end().1).then_some(run)
}

fn with_what_follows(reader: &Reader<'_>, first: Record, epoch: u64) -> VerifiedRun {
    let mut records = vec![first];
    while let Some(next) = records.last().and_then(|last| reader.buffered(last)) {
        records.push(next);
    }
    let bytes = reader.span(&records);
    VerifiedRun::new(&records, bytes, epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(length: usize) -> Arc<VerifiedRun> {
        let bytes: Bytes = (0..length).map(|at| at as u8).collect();
        Arc::new(VerifiedRun::new(&[], bytes, 0))
    }

    #[test]
    fn small_parts_are_copied_into_one_piece_and_large_ones_and_memory_shared() {
        let (one, other) = (run(1000), run(1000));
        let memory = Bytes::from_static(b"memory");
        let places = [
            Place::Run(one.clone(), 10..20),
            Place::Run(one.clone(), 30..40),
            Place::Run(other.clone(), 0..250),
            Place::Memory(memory.clone()),
            Place::Run(one.clone(), 50..51),
        ];
        let pieces = pieces(&places);
        let copied: Vec<u8> = (10..20).chain(30..40).collect();
        assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), [20, 250, 6, 1]);
        assert_eq!((&pieces[0][..], pieces[3][0]), (&copied[..], 50));
        assert!(!one.bytes().as_ptr_range().contains(&pieces[0].as_ptr()));
        assert_eq!(pieces[1].as_ptr(), other.bytes().as_ptr());
        assert_eq!(pieces[2].as_ptr(), memory.as_ptr());
    }
}
