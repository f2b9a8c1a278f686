//! What requests mean: one file per family. A handler decodes, calls the broker, and encodes the answer.

mod absent;
mod answers;
pub(crate) mod assignment;
pub(crate) mod clients;
pub(crate) mod configs;
mod creating;
pub(crate) mod groups;
pub mod in_flight;
pub(crate) mod locks;
pub mod members;
pub mod node_status;
pub(crate) mod offsets;
pub(crate) mod pop;
pub(crate) mod pop_ends;
pub(crate) mod pull;
pub(crate) mod query;
pub(crate) mod recall;
mod retry_policy;
pub(crate) mod route;
pub(crate) mod send;
pub(crate) mod send_back;
pub(crate) mod statistics;
pub mod timers;
pub(crate) mod topics;
pub mod transactions;
pub(crate) mod view;
