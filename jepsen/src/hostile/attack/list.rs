//! Every attack, by name.

use anyhow::{Context, Result};

use super::{
    Attack, admin, connections, control, flight, frames, fuzz, heartbeats, locks, peer_floods, peers, pulls,
    registrations, slow,
};

/// Every attack, in the order in which they are made: those that ask for administration last.
#[must_use]
pub fn all() -> Vec<Box<dyn Attack>> {
    let mut all: Vec<Box<dyn Attack>> = Vec::new();
    all.extend(locks::all());
    all.extend(heartbeats::all());
    all.extend(registrations::all());
    all.extend(pulls::all());
    all.extend(frames::all());
    all.extend(flight::all());
    all.extend(slow::all());
    all.extend(connections::all());
    all.extend(peer_floods::all());
    all.extend(peers::all());
    all.push(Box::new(fuzz::Fuzz));
    all.extend(admin::all());
    all
}

/// The attacks of these names, among them `control`, which is none; all of them when there is no name.
///
/// # Errors
/// When there is no attack of a name.
pub fn named(names: &[String]) -> Result<Vec<Box<dyn Attack>>> {
    if names.is_empty() || names == ["all"] {
        return Ok(all());
    }
    let find = |name: &String| {
        let control: Box<dyn Attack> = Box::new(control::Control);
        let found = all().into_iter().chain([control]).find(|attack| attack.name() == name);
        found.with_context(|| {
            let known: Vec<&str> = all().iter().map(|attack| attack.name()).collect();
            format!("no attack {name}; there are: {}", known.join(", "))
        })
    };
    names.iter().map(find).collect()
}

/// The attacks that a cluster has to bear in each run of the checks.
#[must_use]
pub fn short() -> Vec<String> {
    SHORT.iter().map(|name| (*name).to_owned()).collect()
}

const SHORT: [&str; 9] = [
    "lock-bomb",
    "heartbeat-illegal",
    "unregister-flood",
    "offset-commits",
    "topic-flood",
    "giant-lengths",
    "slow-loris",
    "peer-command",
    "fuzz",
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::hostile::tally::Floor;

    #[test]
    fn names_differ_and_every_attack_has_a_floor_and_a_sentence() {
        let all = all();
        let names: HashSet<&str> = all.iter().map(|attack| attack.name()).collect();
        assert_eq!(names.len(), all.len());
        for attack in &all {
            assert_ne!(attack.floor(), Floor::default(), "{}", attack.name());
            assert!(attack.about().len() > 20, "{}", attack.name());
        }
    }

    #[test]
    fn attacks_are_found_by_name_and_others_are_refused() {
        assert_eq!(named(&short()).unwrap().len(), SHORT.len());
        assert_eq!(named(&[]).unwrap().len(), all().len());
        assert_eq!(named(&["control".to_owned()]).unwrap().len(), 1);
        assert!(all().iter().all(|attack| attack.name() != "control"));
        let refused = named(&["nothing".to_owned()]).map(|_| ()).unwrap_err();
        assert!(refused.to_string().contains("lock-bomb"), "{refused}");
    }
}
