//! Transactions: a producer sends a half message, which no consumer sees, and then says whether it counts (RocketMQ's request 37).
//!
//! A send stores the half message (`send/half.rs`); the replicated state knows its transaction from then on
//! (`folio_state::sections::transactions`). [`end`] commits it or rolls it back, [`checks`] asks producers that have said nothing,
//! [`producers`] finds their connections, on this node or another one, and [`resume`] opens again what was given up.
//!
//! - `transactions.I4` A producer is not asked about a transaction once it was told, by the node that asks it, that the transaction ended;
//!   nor before the time has passed for which it does not want to be asked.
//! - `transactions.I5` Questions under way are bounded for each producer group, in number and in bytes, and none is made for a group
//!   without a living producer.

mod check;
mod checks;
mod end;
mod list;
mod producers;
mod resume;
mod settings;
mod under_way;

pub use check::TransactionCheck;
pub use checks::run;
pub use end::{Resolution, ToEnd};
pub use list::ListedTransaction;
pub(crate) use producers::serve;
pub use settings::TransactionSettings;
pub(crate) use under_way::Checks;
