//! Hostile and broken clients beside a good one.
//!
//! Three nodes, a client that sends and consumes at a steady rate, and one attack after the other, each bounded in time and
//! in what it takes of this machine. While an attack goes on the good client has to be served; afterwards everything has to
//! be as before. An attack is a client: all it has is addresses and sockets.
//!
//! - [`attack`]: the attacks, by noun;
//! - [`Site`] what an attack knows, [`Tally`] what it got through (`hostile.I1`), `lane` and `intruder` its connections;
//! - `good` the good client, `field` the nodes and what is looked at, `watch` what the machine tells of a process;
//! - [`Bounds`] and `verdict`: what an attack may cost;
//! - `run`: one attack after the other.
//!
//! An attack that breaks the cluster is reported, and the next one begins with new nodes.

mod ask;
pub mod attack;
mod crew;
mod field;
mod forge;
mod good;
mod intruder;
mod lane;
mod meter;
mod report;
mod run;
mod seen;
mod site;
mod tally;
mod verdict;
mod watch;

pub use report::{Entry, Report};
pub use run::{Plan, run};
pub use site::Site;
pub use tally::{Done, Floor, Tally};
pub use verdict::Bounds;
