//! Repairs of damaged records, as whoever knows peers asks for them. Which records are damaged is [`super::damage`]'s, the
//! rules too; the writing is the writer's.

use super::damage::{Damage, Watcher};
use super::error::{NoMend, Refusal};
use super::queue::{Change, Completion};
use super::reader::{Reader, Source};
use super::segment::base_of;
use super::shared::Shared;
use super::view::View;
use super::{CommitLog, reads};
use crate::record::{Record, RecordHeader};

impl CommitLog {
    /// The damaged records known, lowest first.
    pub fn damages(&self) -> Vec<Damage> {
        self.inner.shared.damages.all()
    }

    /// Calls `watcher` whenever damage is found from now on.
    pub fn on_damage(&self, watcher: Watcher) {
        self.inner.shared.damages.watch(watcher);
    }

    /// Overwrites a damaged record with `record`; it is durable, and readable again, when `done` is called.
    ///
    /// The caller knows that `record` is committed, and hence the only one that can ever stand there. Refused unless
    /// `damage.I2` holds.
    pub fn mend(&self, record: Record, done: Completion) {
        let fits = self.inner.shared.fits(&record);
        self.change(fits.map(|()| Some(Change::Mend(record))).map_err(Refusal::from), done);
    }

    /// The record at a damaged place as memory still has it, if that is whole: as the copy that stands in for it, or in the
    /// page cache where the disk alone is damaged.
    pub fn cached_copy(&self, damage: &Damage) -> Option<Record> {
        let shared = &self.inner.shared;
        if let Some(record) = shared.damages.stand_in(damage.position, damage.index) {
            return Some(record);
        }
        let live = shared.view.lock().live_at(damage.position, shared.config.segment_bytes)?;
        let mut reader = Reader::new(shared, &live.segment, Source::File, u64::MAX);
        reader.record(damage.position, damage.index, 0).ok()
    }

    /// Whether nothing can be read at a damaged place: no copy stands in for the record.
    pub fn is_unreadable(&self, position: u64) -> bool {
        self.inner.shared.damages.is_unreadable(position)
    }
}

impl Shared {
    /// `damage.I2`
    fn fits(&self, record: &Record) -> Result<(), NoMend> {
        let header = &record.header;
        let position = header.position;
        if self.damages.entry_at(position) != Some(header.index) {
            return Err(NoMend::NoDamage { id: header.id(), position });
        }
        if position + u64::from(header.length)
            > base_of(position, self.config.segment_bytes) + self.config.segment_bytes
        {
            return Err(NoMend::CrossesSegment(position));
        }
        let before = header.index.checked_sub(1).and_then(|index| self.header(index));
        if before.is_some_and(|before| {
            before.crc != header.prev_crc || before.end() > position || before.term > header.term
        }) {
            return Err(NoMend::AfterOther(position));
        }
        let after = self.header_after(header);
        if after.is_some_and(|after| after.prev_crc != header.crc) {
            return Err(NoMend::BeforeOther(position));
        }
        Ok(())
    }

    /// The header that follows `header` in the log, if it can be read: right behind it, or at the next segment's start.
    fn header_after(&self, header: &RecordHeader) -> Option<RecordHeader> {
        let (index, end) = (header.index + 1, header.end());
        let (here, next) = {
            let view = self.view.lock();
            let next = view.segments.iter().find(|live| live.first.0 == index).cloned();
            (view.live_at(header.position, self.config.segment_bytes)?, next)
        };
        let (segment, at) = match &next {
            Some(next) => (&next.segment, next.first.1),
            None => (&here.segment, end),
        };
        Reader::new(self, segment, Source::Anywhere, u64::MAX).header(at, index).ok()
    }

    /// The header of an entry, if it can be read.
    fn header(&self, index: u64) -> Option<RecordHeader> {
        let holds =
            |view: &View| view.first_index() <= index && view.last.is_some_and(|last| index <= last.index);
        if !holds(&self.view.lock()) {
            return None;
        }
        reads::header_of(self, index).ok()
    }
}
