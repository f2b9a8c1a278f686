//! What a broker does, as typed calls with typed results: the services that every front door shares.
//!
//! [`broker::Broker`] is what they work on, one for each group of a node; [`node::NodeContext`] is what the groups share; each service is a file that adds its calls to it, or to the node's end of the group
//! ([`calls`], [`ask`], [`gossip`]).
//!
//! Not here: frames, request codes, headers and sockets, and bringing a request to the leader. A call that only the leader can
//! serve says so by its error.

mod applied;
pub mod ask;
pub mod broker;
pub mod calls;
mod changes;
pub mod client_address;
pub mod clients;
pub mod clock;
pub mod cold_reads;
pub mod commits;
pub mod connection;
mod creations;
pub mod delays;
pub mod error;
pub mod gossip;
mod groups;
mod hearing;
pub mod identity;
mod ids;
mod locks;
mod members;
pub mod messages;
mod name_locks;
pub mod node;
pub mod offsets;
mod peers;
pub mod pending;
pub mod polls;
pub mod pop;
pub mod pull;
pub mod query;
mod rates;
pub mod reads;
mod recalls;
pub mod registrations;
mod rights;
pub mod send;
pub mod send_back;
pub mod sends;
pub mod settings;
pub mod stalls;
mod stamp;
pub mod statistics;
pub mod status;
mod system;
#[cfg(test)]
mod testing;
pub mod topics;
pub mod transactions;
pub mod turns;
