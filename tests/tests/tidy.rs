//! The house rules, applied to this checkout. The rules and how to mend a breach are in
//! `tests/src/tidy`; each test prints every breach, not only the first.

use std::path::Path;

use folio_tests::tidy::{self, SourceFile};

fn checkout() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository");
    let files = tidy::read_tree(root).expect("the checkout is readable");
    assert!(
        files.iter().any(|file| file.path == "Cargo.toml"),
        "found no Cargo.toml below {}: the rules would pass on nothing",
        root.display()
    );
    files
}

#[track_caller]
fn silent(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn crates_depend_only_along_the_arrows() {
    silent(&tidy::arrows(&checkout()));
}

#[test]
fn no_files_of_a_crate_import_each_other_in_a_circle() {
    silent(&tidy::circles(&checkout()));
}

#[test]
fn the_broker_knows_no_wire() {
    silent(&tidy::wire(&checkout()));
}

#[test]
fn no_build_has_planted_defects_unasked() {
    silent(&tidy::planted(&checkout()));
}

#[test]
fn no_rust_file_is_longer_than_the_limit() {
    silent(&tidy::sizes(&checkout()));
}

#[test]
fn every_rust_file_says_what_it_is() {
    silent(&tidy::headers(&checkout()));
}

#[test]
fn no_assertion_is_a_bare_matches() {
    silent(&tidy::bare_matches(&checkout()));
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    silent(&tidy::machine_paths(&checkout()));
}

#[test]
fn unsafe_and_bincode_stay_in_their_one_file() {
    silent(&tidy::confined(&checkout()));
}

#[test]
fn the_lock_file_has_one_bincode() {
    let files = checkout();
    let lock = files.iter().find(|file| file.path == "Cargo.lock").expect("Cargo.lock is tracked");
    silent(&tidy::one_bincode(&lock.text));
}
