//! Groups in one process, on real sockets and on real or simulated disks. One program for all of them: each would compile
//! openraft for itself.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod bad_sector;
mod cluster;
mod dead_leader;
mod derived;
mod earlier_build;
mod files;
mod full_disk;
mod full_ext4;
mod held_answers;
mod membership;
mod moves;
mod older_disk;
mod one_node;
mod panics;
mod peers;
mod popped;
mod repeats;
mod rotten_files;
mod rotten_snapshot;
mod state;
mod state_limit;
mod stopped;
mod three_nodes;
mod timers;
mod transactions;
mod two_groups;
