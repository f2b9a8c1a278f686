//! The list of a group's derived structures on this node: apply, sync, trim and the rest go through all of them here.
//!
//! A structure follows the log in one of two ways ([`Follows`]). Consume queues follow it with the state: commands read where
//! queues end, so queues and state are always as of the same record. All others follow at a pace of their own: each has a
//! point of the log up to which it is built, and what it refuses, or has missed because it was deleted or is new, is
//! brought to it later by a task of its own (`group/bring_up.rs`), while apply goes on.
//!
//! Not here: which structures there are (`registry`), and what they are asked by readers.
//!
//! - `derived.I6`: a structure is applied the records of the log each once and in order, whatever a checkpoint says.
//! - `derived.I7`: no structure but those that follow with the state keeps apply, checkpoints or sends waiting.

mod registry;
mod slot;

use folio_engine::derived::{Derived, DerivedError};
use folio_engine::log::{CommitLog, StampBase};
use folio_engine::queues::{Arrival, ConsumeQueues, DerivedQueues};
use folio_engine::record::Record;
use tokio::sync::Notify;

pub(crate) use registry::{Indexes, Registered, open};
pub(crate) use slot::{Follows, Slot};

/// See the module.
pub(crate) struct DerivedList {
    slots: Vec<Slot>,
    /// Somebody lacks records or wants a sync.
    wanted: Notify,
}

impl DerivedList {
    /// The consume queues, as of `base`, and the others as they were opened. The log begins at `begin`; a structure that does
    /// not fit this log, or that holds entries after `limit`, begins there. Blocks on the disk.
    pub(crate) fn new(
        queues: ConsumeQueues,
        others: Vec<Registered>,
        (log, begin): (&CommitLog, &StampBase),
        base: &StampBase,
        limit: Option<u64>,
    ) -> Result<DerivedList, DerivedError> {
        let mut slots = vec![Slot::new(Box::new(DerivedQueues::new(queues)), Follows::State, base.into())];
        for Registered { structure, mut at } in others {
            let is_disputed = limit.is_some_and(|limit| at.next_index() > limit.saturating_add(1));
            if is_disputed || !slot::is_of(log, begin, &at) {
                tracing::warn!(
                    structure = structure.name(),
                    position = begin.position,
                    "not of this log, or new: built again from the log's start"
                );
                structure.reset(begin)?;
                at = begin.into();
            }
            let slot = Slot::new(structure, Follows::Log, at);
            // What lies before is not applied any more.
            slot.miss_before(base.id.map_or(0, |id| id.index + 1));
            slots.push(slot);
        }
        Ok(DerivedList { slots, wanted: Notify::new() })
    }

    /// Takes a committed record. Only those that follow with the state fail; nothing of the record was applied to them then,
    /// and it is to be applied again.
    pub(crate) fn apply(&self, record: &Record, arrivals: &mut Vec<Arrival>) -> Result<(), DerivedError> {
        for slot in &self.slots {
            if slot.apply(record, arrivals)? {
                self.wanted.notify_one();
            }
        }
        Ok(())
    }

    /// Makes durable what a checkpoint counts on; the others are synced soon (`derived.I7`). Blocks on the disk.
    pub(crate) fn sync(&self) -> Result<(), DerivedError> {
        for slot in &self.slots {
            match slot.follows() {
                Follows::State => slot.structure().sync()?,
                Follows::Log => slot.want_sync(),
            }
        }
        self.wanted.notify_one();
        Ok(())
    }

    /// A snapshot was installed: everything begins at `at`. Blocks on the disk.
    pub(crate) fn reset(&self, at: &StampBase) -> Result<(), DerivedError> {
        self.slots.iter().try_for_each(|slot| slot.reset(at))
    }

    /// The log begins at `start` now. Blocks on the disk.
    pub(crate) fn trim(&self, start: &StampBase) -> Result<(), DerivedError> {
        self.slots.iter().try_for_each(|slot| slot.trim(start))
    }

    /// Whether no record may be taken because a structure that apply waits for has no room for what follows from it.
    pub(crate) fn disk_full(&self) -> bool {
        self.with_state().any(|structure| structure.disk_full())
    }

    /// Tries once more what the disk had no room for. Blocks on the disk.
    pub(crate) fn retry(&self) -> Result<(), DerivedError> {
        self.with_state().try_for_each(|structure| structure.retry().map(drop))
    }

    fn with_state(&self) -> impl Iterator<Item = &dyn Derived> {
        self.slots.iter().filter(|slot| slot.follows() == Follows::State).map(Slot::structure)
    }

    /// How many damaged parts are known.
    pub(crate) fn damaged(&self) -> usize {
        self.slots.iter().map(|slot| slot.structure().damaged()).sum()
    }

    /// All of them, in the order in which records are applied.
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Whether the structure of this name is built up to what is applied.
    pub(crate) fn is_up(&self, name: &str) -> bool {
        self.slots.iter().any(|slot| slot.structure().name() == name && slot.is_up())
    }

    /// Waits until a structure lacks records or wants a sync.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }
}
