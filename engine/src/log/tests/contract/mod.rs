//! One suite for every log that keeps the contract of [`DurableLog`]: the commit log on a real disk and on one that loses power,
//! and the model in memory, which shows where the suite itself expects too much.

mod memory;
mod places;
mod random;
mod rules;

use super::super::{DurableLog, Refusal};
use super::*;
use memory::MemoryLog;
use places::{Crashes, InMemory, OnRealDisk, OnSimDisk, Place};

/// Each rule as a test of each log.
macro_rules! suite {
    ($($module:ident of $place:ty),*; $rules:tt) => {
        $(suite!(@one $module of $place; $rules);)*
    };
    (@one $module:ident of $place:ty; [$($file:ident::$rule:ident),* $(,)?]) => {
        mod $module {
            use super::*;

            $(#[test]
            fn $rule() {
                $file::$rule::<$place>();
            })*
        }
    };
}

suite!(real_disk of OnRealDisk, sim_disk of OnSimDisk, model of InMemory; [
    rules::entries_are_read_as_they_were_appended,
    rules::log_i1_completions_come_in_order_and_tell_of_what_is_durable,
    rules::log_i4_a_vote_is_durable_behind_what_was_appended,
    rules::log_i6_what_is_truncated_is_gone_and_what_is_settled_stays,
    rules::log_i8_offsets_are_given_again_after_a_truncation,
    rules::a_follower_takes_the_leaders_bytes_and_no_others,
    rules::a_refused_request_changes_nothing,
    rules::a_purge_moves_the_front,
    rules::a_log_goes_on_behind_a_purge_beyond_its_end,
    rules::a_log_goes_on_behind_what_it_was_reset_to,
    rules::a_read_ends_at_its_bounds,
    rules::a_closed_log_refuses_and_opens_as_it_was,
    random::any_sequence_of_requests_does_what_it_does_to_the_model,
]);

suite!(sim_disk_without_power of OnSimDisk, model_that_crashes of InMemory; [
    random::a_crash_takes_nothing_that_a_completion_told_of,
]);

/// The state behind the last entry.
fn base_of(log: &impl DurableLog) -> StampBase {
    let state = log.state();
    let next = state.last.map_or(0, |last| last.index);
    let last = log.read(next.max(state.first_index), u64::MAX, usize::MAX).unwrap();
    let prev_crc = last.last().map_or(0, |record| record.header.crc);
    StampBase { id: state.last, position: state.next_position, prev_crc, counters: log.counters() }
}

/// The bytes of all entries.
fn frames(log: &impl DurableLog) -> Vec<Bytes> {
    let records = log.read(log.state().first_index, u64::MAX, usize::MAX).unwrap();
    records.iter().map(|record| record.frame().clone()).collect()
}

/// Appends entries `indexes` in a term.
fn fill(log: &impl DurableLog, term: u64, indexes: std::ops::RangeInclusive<u64>) {
    for index in indexes {
        let draft = match index % 4 {
            0 => command(300),
            1 => transition(&[("a", 0)]),
            _ => messages(&[("a", 0), ("b", index as u32 % 2)]),
        };
        log.append(EntryId { term, index }, draft).unwrap();
    }
}
