//! The binary `folio` as a stranger meets it: real processes, bad input, wrong configurations, stops.

#![expect(clippy::unwrap_used, reason = "a test may fail where it likes")]

mod bad_input;
mod bench;
mod cluster;
mod drain;
mod full_disk;
mod groups;
mod limits;
mod messages;
mod node;
mod private;
mod repeats;
mod start_stop;
