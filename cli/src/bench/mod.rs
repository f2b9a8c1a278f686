//! `folio bench`: a load generator that speaks RocketMQ's wire as any client does, so that it can be
//! pointed at any server of that kind.
//!
//! | module | what it holds |
//! |---|---|
//! | [`options`] | what was asked for, checked |
//! | [`common`] | options that all loads have |
//! | [`target`] | routes, the topic, what the server says about durability |
//! | [`kind`] | plain, delayed or transactional messages, and what each adds to a SEND |
//! | [`template`] | SEND requests made from a prepared frame |
//! | [`wire`] | a connection's buffers, answers read minimally |
//! | [`keeper`] | keeps the route fresh |
//! | [`clock`] | the wall clock |
//! | [`backoff`] | how long a connection waits whose requests are refused |
//! | [`shared`] | what all connections of a load share |
//! | [`slots`] | requests in flight on one connection |
//! | [`transactions`] | what commits half messages |
//! | [`send`], [`pull`] | the connections of loads that send, and of those that pull |
//! | [`run`] | runs the loads that send or pull |
//! | [`pop`] | the load of pops and acknowledgements |
//! | [`lateness`] | how late delayed messages become visible |
//! | [`tally`], [`summary`] | what was counted, and how it is told |
//!
//! It shares a machine with the servers it measures, so a message must cost it little: one thread, one
//! buffer and one write for all that is due on a connection, and no more of an answer read than its
//! number and its code.
//!
//! Not here: correctness of what the server did; the harness in `jepsen` checks that.

mod backoff;
mod clock;
mod common;
mod keeper;
mod kind;
mod lateness;
pub(crate) mod options;
mod pop;
mod progress;
mod pull;
mod queue_reader;
mod run;
mod send;
mod shared;
mod slots;
mod summary;
mod tally;
mod target;
mod template;
#[cfg(test)]
mod testing;
mod transactions;
mod wire;

pub(crate) use options::BenchArgs;
pub(crate) use run::run;
