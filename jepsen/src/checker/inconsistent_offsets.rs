//! inconsistent-offsets: an offset of a queue names one message, whoever asks and whenever.

use std::collections::HashMap;

use super::Finding;
use crate::history::{History, Outcome};
use crate::reading::{Found, QueueKey, Reading};

/// Compares acknowledgements with readings, and readings with each other; a live reader's are
/// among them, so an offset that once showed an uncommitted message is caught.
pub(super) fn check(history: &History, readings: &[&Reading]) -> Finding {
    let mut finding = Finding::fatal("inconsistent-offsets");
    let mut holders: HashMap<(QueueKey, u64), (&Found, &str)> = HashMap::new();
    for reading in readings {
        for (queue, found) in reading.messages() {
            let (first, reader) = *holders.entry((queue, found.offset)).or_insert((found, &reading.reader));
            if first.key != found.key || first.position != found.position {
                finding.add(|| {
                    format!(
                        "{queue} offset {}: {reader} saw {}, {} saw {}",
                        found.offset,
                        show(first),
                        reading.reader,
                        show(found)
                    )
                });
            }
        }
    }
    for op in &history.ops {
        let Outcome::Ok { offset, position } = op.outcome else { continue };
        let queue = QueueKey { topic: op.key.topic, queue: op.key.queue };
        let Some((found, reader)) = holders.get(&(queue, offset)) else { continue };
        let same_position = position.is_none_or(|position| position == found.position);
        if found.key != Some(op.key) || !same_position {
            finding.add(|| {
                format!(
                    "{} was acknowledged at offset {offset} position {position:?}, {reader} saw there {}",
                    op.key,
                    show(found)
                )
            });
        }
    }
    finding
}

fn show(found: &Found) -> String {
    let what = found.key.map_or_else(|| "foreign bytes".to_owned(), |key| key.to_string());
    format!("{what} (position {})", found.position)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{acked, found, history, op, reading};
    use super::*;

    #[test]
    fn two_messages_at_one_offset_conflict() {
        let (one, two) = (reading([found(0, 0)]), reading([found(0, 1)]));
        let finding = check(&History::default(), &[&one, &two]);
        assert_eq!(finding.count, 1);
        assert!(finding.fails());
    }

    #[test]
    fn an_acknowledged_offset_that_holds_another_message_conflicts() {
        let reading = reading([found(0, 1), found(1, 0)]);
        let history = history([acked(0, 0), acked(1, 1)]);
        assert_eq!(check(&history, &[&reading]).count, 2);
    }

    #[test]
    fn an_acknowledged_position_that_is_not_the_stored_one_conflicts() {
        let reading = reading([found(1, 0)]);
        let told = |position| history([op(0, Outcome::Ok { offset: 1, position: Some(position) })]);
        assert_eq!(check(&told(100), &[&reading]).count, 0);
        assert_eq!(check(&told(101), &[&reading]).count, 1);
    }

    #[test]
    fn the_same_message_seen_twice_is_no_conflict() {
        let reading = reading([found(0, 0)]);
        assert_eq!(check(&history([acked(0, 0)]), &[&reading, &reading]).count, 0);
    }
}
