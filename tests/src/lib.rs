//! What the repository-wide tests share: the house rules as functions over file texts.
//!
//! This is not a product crate. `tests/tidy.rs` applies the rules to the checkout;
//! `tests/cluster*.rs` run real processes with the help of `folio-jepsen`.

pub mod tidy;
