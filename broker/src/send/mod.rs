//! Sending: one message or a batch, done when a majority has them on disk.
//!
//! A send is checked ([`check`]), given the server's properties ([`stored`]), and proposed; the proposal's reply calls the
//! sender back. No task and no map per message; a body stays a slice of the received bytes until it is copied into its log
//! record. A batch is one proposal: its messages lie in one record and have consecutive offsets.
//!
//! Not here: transactions (half messages are refused with NO_PERMISSION, as a broker that rejects them
//! answers) and delayed or timed messages (refused with MESSAGE_ILLEGAL: delivering them early would be a
//! silent error). A retry that a consumer sends itself carries a delay level; it is delivered at once.
//!
//! A send to a missing topic creates it first, through the log, and then goes on; sends that come
//! meanwhile wait for the same creation.

mod check;
mod message;
mod stored;
mod to_send;

use std::net::SocketAddr;

use folio_protocol::message::NewMessage;
use folio_protocol::names;
use folio_raft::proposal::{Attempt, Proposal, Receipt, Repeat};
use folio_state::Topic;

use self::check::{Destination, Route, Rules};
pub use self::to_send::ToSend;
use self::to_send::UniqueKey;
use crate::broker::Broker;
use crate::error::BrokerError;
use crate::topics;

/// What comes of a send that is not refused.
pub enum Checked {
    /// It can be stored.
    Store(Prepared),
    /// Its topic must be created first, see [`Broker::create_for_sender`]; then check again.
    Create(Topic),
}

/// A send that can be stored.
pub struct Prepared {
    messages: Vec<NewMessage>,
    repeat: Repeat,
    unique_key: Option<UniqueKey>,
}

/// A send that is stored.
pub struct Sent<'a> {
    /// Where.
    pub receipt: &'a Receipt,
    /// The store host of its messages.
    pub store_host: SocketAddr,
    /// The unique key of a single message.
    pub unique_key: Option<&'a str>,
}

impl Broker {
    /// Checks a send, in RocketMQ's order.
    pub fn check_send(&self, wish: &ToSend<'_>) -> Result<Checked, BrokerError> {
        let place = match self.route(wish)? {
            Route::Create(topic) => return Ok(Checked::Create(topic)),
            Route::Queue(place) => place,
        };
        let draft = message::Draft::new(self, wish, place);
        let (messages, unique_key) = if wish.batch {
            (draft.batch()?, None)
        } else {
            let (message, unique_key) = draft.single()?;
            (vec![message], Some(unique_key))
        };
        let repeat = repeat(wish.attempt, &messages);
        Ok(Checked::Store(Prepared { messages, repeat, unique_key }))
    }

    fn route(&self, wish: &ToSend<'_>) -> Result<Route, BrokerError> {
        let to = Destination {
            topic: wish.topic,
            default_topic: wish.default_topic,
            default_queues: wish.default_queues,
            queue: wish.queue,
            batch: wish.batch,
            reconsume_times: wish.reconsume_times,
            max_reconsume_times: wish.max_reconsume_times,
            producer: wish.client,
        };
        let state = self.group.state();
        let rules = Rules {
            state: &state,
            identity: &self.identity,
            broker_writable: self.settings.permission.is_writable(),
            auto_create: self.settings.auto_create_topic,
            lease_now_ms: self.group.lease_now_ms(),
            draw: self.node.ids.draw(),
        };
        check::route(&rules, &to)
    }

    /// Creates the topic that a send lacks: it is applied here then, and checks find it.
    pub async fn create_for_sender(&self, topic: Topic) -> Result<(), BrokerError> {
        Ok(topics::create_once(self, topic).await?)
    }

    /// Stores a send. `done` is called exactly once, mostly from a task of the group: it must not block.
    pub fn send(
        &self,
        Prepared { messages, repeat, unique_key }: Prepared,
        done: impl FnOnce(Result<Sent<'_>, BrokerError>) + Send + 'static,
    ) {
        let own_host = self.identity.store_host;
        let reply = Box::new(move |outcome: Result<Receipt, _>| match outcome {
            Ok(receipt) => done(Ok(Sent {
                receipt: &receipt,
                store_host: receipt.store_host.unwrap_or(own_host),
                unique_key: unique_key.as_ref().and_then(|key| std::str::from_utf8(key).ok()),
            })),
            Err(error) => done(Err(BrokerError::Propose(error))),
        });
        if let Err((proposal, error)) = self.group.propose(Proposal { messages, repeat, reply }) {
            (proposal.reply)(Err(error));
        }
    }
}

/// A oneway send is never repeated by its client; a redelivered message keeps its key.
fn repeat(attempt: Option<Attempt>, messages: &[NewMessage]) -> Repeat {
    let redelivered =
        |message: &NewMessage| names::is_retry_topic(&message.topic) || names::is_dlq_topic(&message.topic);
    match attempt {
        Some(attempt) if !messages.iter().any(redelivered) => Repeat::Send(attempt),
        _ => Repeat::Store,
    }
}
