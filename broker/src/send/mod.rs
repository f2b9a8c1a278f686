//! Sending: one message or a batch, done when a majority has them on disk.
//!
//! A send is checked ([`check`]), given the server's properties ([`stored`]), and proposed; the proposal's reply calls the
//! sender back. No task and no map per message; a body stays a slice of the received bytes until it is copied into its log
//! record. A batch is one proposal: its messages lie in one record and have consecutive offsets.
//!
//! A delayed message is parked (`folio_protocol::parked`) with the time at which it is due by the leader's clock, and delivered by
//! the driver of timers (`folio_raft::driver`). So is a retry that a consumer sends itself, with a delay level.
//!
//! A message of a transaction is stored as a half message ([`half`]); what ends the transaction is in `transactions`.
//!
//! A send to a missing topic creates it first, through the log, and then goes on; sends that come
//! meanwhile wait for the same creation.

mod check;
mod half;
mod message;
pub(crate) mod stored;
mod to_send;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use folio_protocol::message::NewMessage;
use folio_protocol::names;
use folio_protocol::recall::RecallHandle;
use folio_raft::proposal::{Proposal, Receipt, Repeat};
use folio_state::Topic;

use self::check::{Destination, Route, Rules};
use self::message::Single;
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
    /// Of a delayed message.
    recall_handle: Option<String>,
    /// Of a half message: its real queue, and its place among those under way.
    half_of: Option<(u32, HalfUnderWay)>,
}

/// A send that is stored.
pub struct Sent<'a> {
    /// Where.
    pub receipt: &'a Receipt,
    /// The store host of its messages.
    pub store_host: SocketAddr,
    /// The unique key of a single message.
    pub unique_key: Option<&'a str>,
    /// By which a delayed message is recalled; none for a repeat, whose message is stored already.
    pub recall_handle: Option<String>,
    /// The queue that its client sent it to.
    pub queue: u32,
}

impl Broker {
    /// Checks a send, in RocketMQ's order.
    pub fn check_send(&self, wish: &ToSend<'_>) -> Result<Checked, BrokerError> {
        let place = match self.route(wish)? {
            Route::Create(topic) => return Ok(Checked::Create(topic)),
            Route::Queue(place) => place,
        };
        let draft = message::Draft::new(self, wish, place);
        let repeat = repeat(wish);
        if wish.batch {
            let messages = draft.batch()?;
            let (unique_key, recall_handle, half_of) = (None, None, None);
            return Ok(Checked::Store(Prepared { messages, repeat, unique_key, recall_handle, half_of }));
        }
        let Single { message, unique_key, due_ms, half_of } = draft.single()?;
        let half_of = half_of.map(|queue| (queue, HalfUnderWay::new(&self.halves_under_way)));
        // A consumer group's retries are not its producers' to recall.
        let recallable = due_ms.filter(|_| !names::is_retry_topic(wish.topic));
        let recall_handle = recallable.map(|due_ms| self.recall_handle(wish.topic, &unique_key, due_ms));
        let (messages, unique_key) = (vec![message], Some(unique_key));
        Ok(Checked::Store(Prepared { messages, repeat, unique_key, recall_handle, half_of }))
    }

    /// Half messages that are proposed, or about to be.
    fn halves_under_way(&self) -> u64 {
        self.halves_under_way.load(Ordering::Relaxed)
    }

    /// By which a delayed message is recalled.
    pub(crate) fn recall_handle(&self, topic: &str, unique_key: &[u8], due_ms: u64) -> String {
        let handle = RecallHandle {
            topic: topic.to_owned(),
            broker_name: self.identity.broker_name.clone(),
            timestamp: due_ms.to_string(),
            unique_key: String::from_utf8_lossy(unique_key).into_owned(),
        };
        handle.encode()
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
        Prepared { messages, repeat, unique_key, recall_handle, half_of }: Prepared,
        done: impl FnOnce(Result<Sent<'_>, BrokerError>) + Send + 'static,
    ) {
        let own_host = self.identity.store_host;
        let reply = Box::new(move |outcome: Result<Receipt, _>| match outcome {
            Ok(receipt) => done(Ok(Sent {
                receipt: &receipt,
                // What is stored now is a half in the queue of halves; of a repeat the first attempt's queue is known.
                queue: match &half_of {
                    Some((queue, _)) if receipt.store_host.is_none() => *queue,
                    _ => receipt.queue_id,
                },
                store_host: receipt.store_host.unwrap_or(own_host),
                unique_key: unique_key.as_ref().and_then(|key| std::str::from_utf8(key).ok()),
                // A repeat may name another time than what is stored.
                recall_handle: recall_handle.filter(|_| receipt.store_host.is_none()),
            })),
            Err(error) => done(Err(BrokerError::Propose(error))),
        });
        if let Err((proposal, error)) = self.group.propose(Proposal { messages, repeat, reply }) {
            (proposal.reply)(Err(error));
        }
    }
}

/// A half message under way; it counts until it is dropped.
struct HalfUnderWay(Arc<AtomicU64>);

impl HalfUnderWay {
    fn new(all: &Arc<AtomicU64>) -> HalfUnderWay {
        all.fetch_add(1, Ordering::Relaxed);
        HalfUnderWay(all.clone())
    }
}

impl Drop for HalfUnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A oneway send is never repeated by its client; a redelivered message keeps its key.
fn repeat(wish: &ToSend<'_>) -> Repeat {
    let is_redelivered = names::is_retry_topic(wish.topic) || names::is_dlq_topic(wish.topic);
    match wish.attempt {
        Some(attempt) if !is_redelivered => Repeat::Send(attempt),
        _ => Repeat::Store,
    }
}
