//! resurrected: a send the server refused, or that never left the client, is found nowhere.
//!
//! A refusal tells the client that sending again is safe; if the first one is there all the same,
//! the client has been made to duplicate its message.

use std::collections::HashMap;

use super::Finding;
use crate::history::{History, Outcome};
use crate::reading::Reading;

pub(super) fn check(history: &History, readings: &[&Reading]) -> Finding {
    let refused: HashMap<_, _> = history
        .ops
        .iter()
        .filter_map(|op| match &op.outcome {
            Outcome::Fail { error } => Some((op.key, error)),
            Outcome::Ok { .. } | Outcome::Unknown { .. } => None,
        })
        .collect();
    let mut finding = Finding::fatal("resurrected");
    for reading in readings {
        for (queue, found) in reading.messages() {
            if let Some(error) = found.key.and_then(|key| refused.get(&key)) {
                finding.add(|| {
                    format!(
                        "{}: {queue} offset {} holds a send that was refused with: {error}",
                        reading.reader, found.offset
                    )
                });
            }
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::sample::{acked, failed, found, history, reading, unknown};
    use super::*;

    #[test]
    fn a_refused_send_that_is_there_breaks_it() {
        let reading = reading([found(0, 0)]);
        let finding = check(&history([failed(0)]), &[&reading]);
        assert_eq!(finding.count, 1);
        assert!(finding.fails());
    }

    #[test]
    fn acknowledged_and_unknown_sends_may_be_there() {
        let reading = reading([found(0, 0), found(1, 1)]);
        assert_eq!(check(&history([acked(0, 0), unknown(1)]), &[&reading]).count, 0);
    }
}
