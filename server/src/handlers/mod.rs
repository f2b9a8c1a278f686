//! What requests mean: one file per family.

pub(crate) mod clients;
pub(crate) mod node_status;
pub(crate) mod route;
