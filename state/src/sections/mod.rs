//! The kinds of replicated state, one file each: its data, its commands, and what they do.

pub mod features;
pub mod groups;
pub mod locks;
pub mod min_offsets;
#[cfg(feature = "next-level")]
pub mod next_level;
pub mod offset_commits;
pub mod offsets;
pub mod popped;
pub mod sent_back;
pub mod timers;
pub mod topics;
pub mod transactions;

mod size;

use crate::cow_map::CowMap;
use crate::operation::Outcome;

fn removed<T>(found: Option<T>) -> Outcome {
    if found.is_some() { Outcome::Done } else { Outcome::NotFound }
}

fn insert_new<T: Clone>(map: &mut CowMap<String, T>, name: String, value: T) -> Outcome {
    if map.contains_key(&name) {
        return Outcome::Exists;
    }
    map.insert(name, value);
    Outcome::Done
}
