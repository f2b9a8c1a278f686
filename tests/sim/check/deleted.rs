//! What was deleted with its topic, or with a queue that its topic lost, is served by no node that has applied the deletion.
//!
//! Where queues must begin is computed here once more, from the committed records alone. Where they do begin is read off each
//! node's consume queues.

use std::collections::BTreeMap;

use folio_engine::record::{Record, RecordKind};
use folio_protocol::message::Messages;
use folio_raft::group::Group;
use folio_raft::status::{Role, Status};
use folio_state::{Command, CreateTopic, DeleteTopic, PutTopic, Topic};

use super::place::Place;
use super::{Checked, violation};
use crate::client::{QUEUES, TOPICS};

/// A queue.
type Key = (String, u32);

#[derive(Default)]
pub(crate) struct Deleted {
    next: BTreeMap<Key, u64>,
    /// Queues of each topic that may be read or written.
    queues: BTreeMap<String, u32>,
    /// Per queue: the entry of each deletion, and the first offset that is not deleted.
    begins: BTreeMap<Key, Vec<(u64, u64)>>,
}

impl Deleted {
    /// Takes in the next committed record.
    pub(crate) fn committed(&mut self, record: &Record) -> Checked {
        match record.header.kind {
            RecordKind::Command => self.decode(record, &record.payload())?,
            RecordKind::Transition => {
                record.commands().try_for_each(|command| self.decode(record, &command))?;
            }
            RecordKind::Messages | RecordKind::Blank | RecordKind::Membership => {}
        }
        for found in Messages::new(record.messages()) {
            let (_, view) = found.map_err(|error| violation("readable messages", error.to_string()))?;
            let key = (view.topic().to_owned(), view.queue_id());
            self.next.insert(key, view.queue_offset() + 1);
        }
        Ok(())
    }

    fn decode(&mut self, record: &Record, command: &[u8]) -> Checked {
        let command = Command::decode(command);
        let command = command.map_err(|error| violation("readable commands", error.to_string()))?;
        self.command(record.header.index, command);
        Ok(())
    }

    fn command(&mut self, index: u64, command: Command) {
        let wide = |topic: &Topic| topic.read_queues.max(topic.write_queues);
        match command {
            Command::CreateTopic(CreateTopic(topic)) => {
                self.queues.entry(topic.name.clone()).or_insert(wide(&topic));
            }
            Command::PutTopic(PutTopic(topic)) => {
                let (had, has) = (self.queues.insert(topic.name.clone(), wide(&topic)), wide(&topic));
                self.delete(index, &topic.name, has..had.unwrap_or(0));
            }
            Command::DeleteTopic(DeleteTopic { name }) => {
                self.queues.remove(&name);
                self.delete(index, &name, 0..u32::MAX);
            }
            _ => {}
        }
    }

    fn delete(&mut self, index: u64, topic: &str, queues: std::ops::Range<u32>) {
        for (key, next) in self.next.iter().filter(|(key, _)| key.0 == topic && queues.contains(&key.1)) {
            self.begins.entry(key.clone()).or_default().push((index, *next));
        }
    }

    /// Whether what lies there is deleted.
    pub(crate) fn is_gone(&self, place: &Place) -> bool {
        place.offset < self.begin(&place.topic, place.queue, u64::MAX)
    }

    /// Where a queue begins once everything up to an entry is applied.
    pub(crate) fn begin(&self, topic: &str, queue: u32, applied: u64) -> u64 {
        let begins = self.begins.get(&(topic.to_owned(), queue)).into_iter().flatten();
        begins.filter(|(index, _)| *index <= applied).map(|(_, begin)| *begin).max().unwrap_or(0)
    }

    /// Looks at what a node gives to readers.
    pub(crate) fn look(&self, group: &Group, status: &Status) -> Checked {
        // It stopped in the middle of a record.
        if self.begins.is_empty() || matches!(status.role, Role::Stopped(_)) {
            return Ok(());
        }
        for topic in TOPICS {
            for queue in 0..QUEUES {
                let begin = self.begin(topic, queue, status.applied);
                let first = group.queues().bounds(topic, queue).map_or(begin, |(first, _)| first);
                if first < begin {
                    let seen = format!(
                        "node {}, applied {}: {topic} {queue} begins at {first}, deleted below {begin}",
                        status.node_id, status.applied
                    );
                    return Err(violation("deleted is not served", seen));
                }
            }
        }
        Ok(())
    }
}
