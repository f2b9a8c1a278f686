//! The binary `folio` as a stranger meets it: real processes, bad input, wrong configurations, stops.

mod bad_input;
mod cluster;
mod node;
mod start_stop;
