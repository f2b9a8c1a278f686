//! A node, or three, and real connections: what clients send and what they are answered, family by family.

mod admin;
mod delayed;
mod deleted;
mod extremes;
mod failover;
mod followers;
mod hostile;
mod members;
mod misheard;
mod node;
mod offsets;
mod operators;
mod pop;
mod pop_many;
mod pull;
mod query;
mod repeats;
mod resources;
mod retry;
mod send;
mod statistics;
mod transactions;
mod turns;
