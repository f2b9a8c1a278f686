#![forbid(unsafe_code)]
//! Placeholder until the crate's first module lands.
