//! What requests mean: one file per family.

pub(crate) mod clients;
pub mod members;
pub mod node_status;
pub(crate) mod route;
