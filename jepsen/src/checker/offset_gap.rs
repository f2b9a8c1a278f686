//! offset-gap: a replica holds a queue's offsets one after the other, without a hole or a step back.
//!
//! A queue starts at 0, or, where messages may expire, at the first offset the broker still keeps.

use super::Finding;
use crate::reading::Reading;

pub(super) fn check(readings: &[Reading]) -> Finding {
    let mut finding = Finding::fatal("offset-gap");
    for reading in readings {
        for (queue, found) in &reading.queues {
            let mut expected = reading.start(*queue);
            for found in found {
                if found.offset != expected {
                    finding.add(|| {
                        format!(
                            "{}: {queue} has offset {} where {expected} belongs",
                            reading.reader, found.offset
                        )
                    });
                }
                expected = found.offset + 1;
            }
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::sample::{found, reading};
    use super::*;

    #[test]
    fn a_hole_a_late_start_and_a_step_back_are_gaps() {
        assert_eq!(check(&[reading([found(0, 0), found(2, 2)])]).count, 1);
        assert_eq!(check(&[reading([found(1, 0)])]).count, 1);
        let back = check(&[reading([found(0, 0), found(1, 1), found(1, 1)])]);
        assert_eq!(back.count, 1);
        assert!(back.fails());
    }

    #[test]
    fn dense_offsets_have_no_gap() {
        assert_eq!(check(&[reading([found(0, 0), found(1, 1)])]).count, 0);
    }
}
