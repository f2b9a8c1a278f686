//! What brokers of one group say to each other besides Raft and forwarded requests: their end of `Group::call`.
//!
//! A request is one kind byte and what follows it:
//!
//! | kind | what | follows | answer |
//! |---|---|---|---|
//! | 1, 4 | the front door's, see `server/src/hooks.rs` | | |
//! | 2 | what changed of a node's table of local clients | JSON, see `clients/share.rs` | what was heard of it, see there |
//! | 3 | "create this consumer group and its retry topic" | the group's name, UTF-8 | 0 done, 1 not leader, 2 failed |
//! | 5 | "have you applied the entry of this index?" | 8 bytes, little-endian | empty, once it has, or after a second |
//! | 6 | "what does this client know of an earlier send?" | see `ask.rs` | see `ask.rs` |
//! | 7 | "ask a producer of this group about its transaction" | see `transactions/producers.rs` | see there |
//!
//! Not here: Raft's own messages; they have their own connections.

/// Kind byte of a part of a node's client table.
pub(crate) const CLIENTS: u8 = 2;
/// Kind byte of a request to create a consumer group.
pub(crate) const ENSURE_GROUP: u8 = 3;
/// Kind byte of the question whether an entry is applied.
pub(crate) const APPLIED: u8 = 5;
/// Kind byte of the question what a client knows of an earlier send.
pub(crate) const KNOWS: u8 = 6;
/// Kind byte of a question to a producer.
pub(crate) const CHECK_TRANSACTION: u8 = 7;
