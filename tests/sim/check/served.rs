//! What readers see is applied, only.

use std::collections::BTreeMap;

use folio_raft::group::Group;
use folio_raft::status::{Role, Status};

use super::{Checked, violation};
use crate::client::{QUEUES, TOPICS};

/// The end of each node's queues when it was last looked at.
#[derive(Default)]
pub(crate) struct Served(BTreeMap<(u64, &'static str, u32), u64>);

impl Served {
    pub(crate) fn look(&mut self, group: &Group, status: &Status) -> Checked {
        // It stopped in the middle of a record, which is committed.
        if matches!(status.role, Role::Stopped(_)) {
            return Ok(());
        }
        for topic in TOPICS {
            for queue in 0..QUEUES {
                let Some((first, end)) = group.queues().bounds(topic, queue) else { continue };
                let known = self.0.insert((status.node_id, topic, queue), end);
                if known == Some(end) || first == end {
                    continue;
                }
                let last = group.queues().units(topic, queue, end - 1, 1);
                let Some(position) = last.ok().and_then(|units| units.first().map(|unit| unit.position))
                else {
                    continue;
                };
                if position >= status.applied_position {
                    let seen = format!(
                        "node {}: {topic} {queue} shows what lies at {position}, applied up to {}",
                        status.node_id, status.applied_position
                    );
                    return Err(violation("only what is applied is served", seen));
                }
            }
        }
        Ok(())
    }
}
