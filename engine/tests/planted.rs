//! Defects on purpose: no build has one unasked.

use folio_engine::planted::{NAMES, active, is};

#[cfg(not(feature = "planted"))]
#[test]
fn a_build_without_the_feature_has_no_defect_at_compile_time() {
    const NONE: bool = is("ack-before-sync") || active().is_some();
    const { assert!(!NONE) };
    assert!(NAMES.into_iter().all(|name| !is(name)));
}

#[cfg(feature = "planted")]
#[test]
fn without_the_variable_there_is_no_defect() {
    assert_eq!(active(), None);
    assert!(NAMES.into_iter().all(|name| !is(name)));
}
