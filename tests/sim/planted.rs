//! Each defect of `engine/src/planted.rs`, and which invariants of the simulation notice it in how many runs.

use std::collections::BTreeMap;

use folio_engine::planted::NAMES;

use crate::number;
use crate::run::{invariant_of, many};

/// Runs for each defect.
const SEEDS: u64 = 16;

#[test]
fn t50_every_planted_defect_is_caught() {
    let (first, seeds) = (number("FOLIO_SIM_FIRST", 0), number("FOLIO_SIM_PLANTED_SEEDS", SEEDS));
    let only = std::env::var("FOLIO_SIM_PLANTED_ONLY").unwrap_or_default();
    println!("| broken on purpose | runs | caught by (runs) |\n|---|---|---|");
    let mut missed = Vec::new();
    for name in [""].into_iter().chain(NAMES).filter(|name| only.is_empty() || only == *name) {
        let (_, failures) = many(first..first + seeds, name);
        let mut caught: BTreeMap<&str, usize> = BTreeMap::new();
        for failure in &failures {
            *caught.entry(invariant_of(failure)).or_default() += 1;
        }
        let mut by: Vec<_> = caught.into_iter().collect();
        by.sort_by_key(|(_, runs)| std::cmp::Reverse(*runs));
        let by: Vec<String> =
            by.into_iter().map(|(invariant, runs)| format!("{invariant} ({runs})")).collect();
        println!("| {name} | {seeds} | {} |", if by.is_empty() { "nothing".into() } else { by.join(", ") });
        if failures.is_empty() != name.is_empty() {
            missed.push((name, failures));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}
