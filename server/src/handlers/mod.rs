//! What requests mean: one file per family.

mod absent;
mod changes;
pub(crate) mod clients;
pub(crate) mod configs;
pub(crate) mod groups;
pub(crate) mod locks;
pub mod members;
pub mod node_status;
pub(crate) mod offsets;
pub(crate) mod pull;
pub(crate) mod route;
pub(crate) mod send;
pub(crate) mod send_back;
mod state;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod topics;
pub(crate) mod view;

pub use pull::Parked;
pub use state::HandlerState;
