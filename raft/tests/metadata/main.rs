//! What commands do, through restarts, changes of leader and new members.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "../cluster/mod.rs"]
mod cluster;
mod deleted;
#[path = "../files/mod.rs"]
mod files;
mod locks;
