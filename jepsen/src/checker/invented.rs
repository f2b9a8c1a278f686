//! invented: whatever is found was sent, to that queue, with these very bytes.

use std::collections::HashSet;

use super::Finding;
use crate::history::History;
use crate::reading::Reading;

/// A body that is no send of this run counts as well: somebody made it up.
pub(super) fn check(history: &History, readings: &[&Reading]) -> Finding {
    let sent = history.sends().map(|op| op.key);
    let sent: HashSet<_> = sent.chain(history.repeats.iter().map(|repeat| repeat.object)).collect();
    let mut finding = Finding::fatal("invented");
    for reading in readings {
        for (queue, found) in reading.messages() {
            if !found.key.is_some_and(|key| sent.contains(&key)) {
                finding.add(|| {
                    let what = match found.key {
                        Some(key) => format!("{key}, which was never sent"),
                        None => "bytes that were never sent to this queue".to_owned(),
                    };
                    format!("{}: {queue} offset {} holds {what}", reading.reader, found.offset)
                });
            }
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::sample::{acked, found, history, reading};
    use super::*;
    use crate::reading::Found;

    #[test]
    fn a_message_nobody_sent_and_a_damaged_one_are_invented() {
        let history = history([acked(0, 0)]);
        let damaged = Found { key: None, ..found(2, 0) };
        let reading = reading([found(0, 0), found(1, 77), damaged]);
        let finding = check(&history, &[&reading]);
        assert_eq!(finding.count, 2);
        assert!(finding.fails());
    }

    #[test]
    fn what_was_sent_is_not_invented() {
        let reading = reading([found(0, 0)]);
        assert_eq!(check(&history([acked(0, 0)]), &[&reading]).count, 0);
    }
}
