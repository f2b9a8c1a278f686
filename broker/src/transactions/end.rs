//! The end of a transaction, as its producer says it (37).
//!
//! Who repeats an end, perhaps to another node and much later, finds the transaction ended and is told success, if it ended in that
//! way. How it ended is remembered for the latest ones. Of an older one whose half message is still in the log success is told,
//! too. RocketMQ stores the message of a repeated commit a second time, as long as the half message is there.

use std::sync::Arc;
use std::time::Duration;

use folio_protocol::Name;
use folio_protocol::half;
use folio_protocol::message::{MessageView, NewMessage};
use folio_raft::driver::{End, outcome};
use folio_state::Ending;
use folio_state::sections::transactions::OpenTransaction;
use tokio::time::sleep;

use crate::broker::Broker;
use crate::error::BrokerError;
use crate::messages::{self, Found};

/// Looks for a half message that is being stored elsewhere.
const LOOKS: usize = 50;
/// Pause between them.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// What a producer says of its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// It counts.
    Commit,
    /// It does not.
    RollBack,
    /// The producer does not know yet.
    Unknown,
}

/// The end of a transaction.
#[derive(Debug, Clone)]
pub struct ToEnd {
    /// The producer's group.
    pub group: Name,
    /// Position of the half message, as the producer was told.
    pub position: i64,
    /// Its queue offset, as the producer was told.
    pub queue_offset: i64,
    /// How it ends.
    pub resolution: Resolution,
    /// Whether that answers a question.
    pub is_answer: bool,
}

impl Broker {
    /// Ends a transaction; returns once that is applied here, or was before. Only the leader can.
    pub async fn end_transaction(self: &Arc<Self>, wish: &ToEnd) -> Result<(), BrokerError> {
        let Ok(id) = u64::try_from(wish.position) else { return Err(not_found()) };
        let ending = match wish.resolution {
            Resolution::Commit => Ending::Committed,
            Resolution::RollBack => Ending::RolledBack,
            Resolution::Unknown => {
                if wish.is_answer {
                    self.checks.answered(id);
                }
                return Ok(());
            }
        };
        if id >= self.group.applied_position() {
            // Perhaps another node leads by now, and has stored it.
            self.group.confirm().await?;
        }
        for _ in 0..LOOKS {
            let open = self.group.state().transactions().get(&wish.group, id).copied();
            let Some(open) = open else { return self.ended(wish, id, ending).await };
            if i64::try_from(open.queue_offset) != Ok(wish.queue_offset) {
                return Err(wrong_offset());
            }
            let message = match ending {
                Ending::Committed => match self.half(id, &open).await? {
                    Some((bytes, message)) => {
                        let message = MessageView::parse(&message).ok();
                        let made = message.and_then(|message| half::committed(&message, &bytes.message));
                        Some(made.ok_or_else(|| {
                            BrokerError::Internal(format!(
                                "the half message of transaction {id} names no queue"
                            ))
                        })?)
                    }
                    // It is stored further on by now.
                    None => {
                        sleep(LOOK_PAUSE).await;
                        continue;
                    }
                },
                _ => None,
            };
            self.end(&wish.group, id, ending, message).await?;
            // Another end may have been the first.
            return self.ended(wish, id, ending).await;
        }
        Err(BrokerError::Unreadable(format!("the half message of transaction {id} cannot be read")))
    }

    /// A client of this node ends a transaction, here or at the leader (`transactions.I4`).
    pub fn note_end(&self, id: u64) {
        self.checks.note_end(id);
    }

    /// Ends one, if it is open.
    pub(super) async fn end(
        &self,
        group: &str,
        id: u64,
        ending: Ending,
        message: Option<NewMessage>,
    ) -> Result<(), BrokerError> {
        let end = End { group: group.to_owned(), id, ending, message };
        Ok(outcome(|reply| self.group.end_transaction(end, reply)).await?)
    }

    /// The half message of an open transaction; none where it does not lie there any more.
    pub(super) async fn half(
        self: &Arc<Self>,
        id: u64,
        open: &OpenTransaction,
    ) -> Result<Option<(Found, bytes::Bytes)>, BrokerError> {
        let position = i64::try_from(open.position).unwrap_or(-1);
        let Some(found) = messages::find(self, position).await? else { return Ok(None) };
        let bytes = found.message.clone();
        let is_it = MessageView::parse(&bytes)
            .is_ok_and(|message| message.topic() == half::TOPIC && half::transaction(&message) == id);
        Ok(is_it.then_some((found, bytes)))
    }

    /// What who ends a transaction is told that is not open any more, or never was.
    async fn ended(self: &Arc<Self>, wish: &ToEnd, id: u64, ending: Ending) -> Result<(), BrokerError> {
        let known = self.group.state().transactions().ending(id);
        match known {
            Some(known) if known == ending => Ok(()),
            Some(Ending::Committed) => Err(contradicts("it was committed before")),
            Some(Ending::RolledBack) => Err(contradicts("it was rolled back before")),
            Some(Ending::GivenUp) => {
                Err(contradicts("it was given up, as its producer was asked too often; it can be resumed"))
            }
            None => self.ended_long_ago(wish).await,
        }
    }

    /// Nothing is remembered of it but its half message.
    async fn ended_long_ago(self: &Arc<Self>, wish: &ToEnd) -> Result<(), BrokerError> {
        let found = messages::find(self, wish.position).await?.ok_or_else(not_found)?;
        let message = MessageView::parse(&found.message).map_err(|_| not_found())?;
        if message.topic() != half::TOPIC {
            return Err(not_found());
        }
        if half::producer_group(&message) != Some(&*wish.group) {
            return Err(BrokerError::Internal("The producer group wrong".to_owned()));
        }
        if i64::try_from(half::first_queue_offset(&message)) != Ok(wish.queue_offset) {
            return Err(wrong_offset());
        }
        Ok(())
    }
}

fn contradicts(why: &str) -> BrokerError {
    BrokerError::IllegalOperation(format!("the transaction cannot be ended like this: {why}"))
}

fn not_found() -> BrokerError {
    BrokerError::Internal("Find prepared transaction message failed".to_owned())
}

fn wrong_offset() -> BrokerError {
    BrokerError::Internal("The transaction state table offset wrong".to_owned())
}
