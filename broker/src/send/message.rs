//! Making the messages to store of what a client sent.

use bytes::Bytes;
use folio_protocol::Name;
use folio_protocol::batch::BatchItems;
use folio_protocol::flags::sys_flag;
use folio_protocol::limits::{PROPERTIES_BYTES_MAX, TOPIC_BYTES_MAX};
use folio_protocol::message::NewMessage;
use folio_protocol::names;
use folio_protocol::parked;
use folio_state::sections::features::TIMERS;

use super::check::Place;
use super::stored::{self, Kind, Wish};
use super::to_send::{ToSend, UniqueKey};
use crate::broker::Broker;
use crate::clock::now_ms;
use crate::error::BrokerError;
use crate::topics::message_type;

/// Messages of one batch at most: what fits its body is far less than a record holds.
const BATCH_MESSAGES_MAX: usize = 65_536;
/// System flag bits that are the server's to set.
const SERVERS_FLAGS: i32 = sys_flag::TRANSACTION_MASK | sys_flag::NEED_UNWRAP | sys_flag::INNER_BATCH;

/// Everything the messages of one request share.
pub(super) struct Draft<'a> {
    pub(super) broker: &'a Broker,
    pub(super) wish: &'a ToSend<'a>,
    /// The topic to store in.
    pub(super) topic: Name,
    pub(super) place: Place,
}

/// The message of an ordinary send.
pub(super) struct Single {
    pub(super) message: NewMessage,
    pub(super) unique_key: UniqueKey,
    /// When it is due, if it is parked.
    pub(super) due_ms: Option<u64>,
    /// The real queue, if it is a half message.
    pub(super) half_of: Option<u32>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(broker: &'a Broker, wish: &'a ToSend<'a>, place: Place) -> Self {
        let topic = place.diverted.as_deref().unwrap_or(wish.topic).into();
        Self { broker, wish, topic, place }
    }

    /// The one message of an ordinary send.
    pub(super) fn single(&self) -> Result<Single, BrokerError> {
        let body = self.wish.body;
        self.check_body(body.len())?;
        let sent = self.wish.properties.as_bytes();
        if sent.len() > PROPERTIES_BYTES_MAX {
            return Err(too_long("properties", sent.len(), PROPERTIES_BYTES_MAX));
        }
        let seen = stored::look(sent)?;
        self.check_type(seen.kind, sent)?;
        let is_retry = names::is_retry_topic(self.wish.topic);
        if seen.kind == Kind::Prepared && !is_retry {
            return self.half(&seen);
        }
        let due_ms = match seen.kind {
            Kind::Delayed(wish) if !is_retry || self.delays_retries() => self.due_ms(wish)?,
            _ if is_retry => None,
            kind => self.check_kind(kind).map(|()| None)?,
        };
        let made = seen.unique_key.is_none().then(|| self.broker.node.ids.unique_id());
        let unique_key = seen.unique_key.or(made.as_deref()).unwrap_or_default();
        let real_topic = due_ms.map(|_| &*self.topic);
        let properties = stored::store(sent, &seen, &self.broker.stamp, unique_key, real_topic)?;
        let mut message = self.message(self.wish.flag, body.clone(), properties);
        if let Some(due_ms) = due_ms {
            message.topic = parked::TOPIC.into();
            message.prepared_transaction_offset = due_ms as i64;
        }
        Ok(Single {
            message,
            unique_key: UniqueKey::from_slice(unique_key.as_bytes()),
            due_ms,
            half_of: None,
        })
    }

    /// Whether a retry that a consumer sends itself waits. Before the group delays messages it comes at once. A dead letter always does.
    fn delays_retries(&self) -> bool {
        self.place.diverted.is_none() && self.broker.group.state().level() >= TIMERS
    }

    /// When a delayed message is due by this node's clock, ms since the epoch; `None`: now.
    fn due_ms(&self, wish: Wish) -> Result<Option<u64>, BrokerError> {
        if self.broker.group.state().level() < TIMERS {
            return Err(BrokerError::IllegalMessage(
                "delayed and timed messages (DELAY, TIMER_*) are supported once all nodes have a build that supports them"
                    .to_owned(),
            ));
        }
        let (settings, now_ms) = (&self.broker.settings, now_ms());
        let delay_ms = match wish {
            Wish::Level(level) => return Ok(Some(now_ms + settings.delay_levels.delay_ms(level))),
            Wish::After(delay_ms) => delay_ms,
            // It is parked although that has passed: the first attempt may have come before, and the window of repeats knows that one.
            Wish::At(due_ms) if due_ms <= now_ms => return Ok(Some(now_ms)),
            Wish::At(due_ms) => due_ms - now_ms,
        };
        let max_ms = settings.timer_delay_max_s.saturating_mul(1000);
        if delay_ms > max_ms {
            return Err(BrokerError::IllegalMessage(format!(
                "timer message illegal, the delay time should not be bigger than the max delay {max_ms}ms (timerMaxDelaySec)"
            )));
        }
        Ok(Some(now_ms + delay_ms).filter(|_| delay_ms > 0))
    }

    /// The messages of a batch, their bodies and properties slices of the received bytes.
    pub(super) fn batch(&self) -> Result<Vec<NewMessage>, BrokerError> {
        let body = self.wish.body;
        self.check_body(body.len())?;
        let mut messages = Vec::new();
        for item in BatchItems::new(body) {
            let item = item.map_err(|error| BrokerError::IllegalMessage(error.to_string()))?;
            let kind = stored::look(item.properties)?.kind;
            self.check_type(kind, item.properties)?;
            self.check_kind(kind)?;
            if messages.len() == BATCH_MESSAGES_MAX {
                return Err(too_long("batch", messages.len() + 1, BATCH_MESSAGES_MAX));
            }
            let (item_body, properties) = (body.slice(item.body_range), body.slice(item.properties_range));
            messages.push(self.message(item.flag, item_body, properties));
        }
        Ok(messages)
    }

    fn check_body(&self, bytes: usize) -> Result<(), BrokerError> {
        if bytes == 0 {
            return Err(BrokerError::IllegalMessage("the message body is empty".to_owned()));
        }
        let max = self.broker.settings.body_bytes_max;
        if bytes > max {
            return Err(too_long("body", bytes, max));
        }
        let topic = self.wish.topic;
        if topic.len() > TOPIC_BYTES_MAX && !names::is_retry_topic(topic) && !names::is_dlq_topic(topic) {
            return Err(too_long("topic", topic.len(), TOPIC_BYTES_MAX));
        }
        Ok(())
    }

    /// Where that is asked for, whether the topic is for messages of this kind.
    fn check_type(&self, kind: Kind, properties: &[u8]) -> Result<(), BrokerError> {
        if !self.broker.settings.checks_message_type {
            return Ok(());
        }
        let state = self.broker.group.state();
        state.topic(self.wish.topic).map_or(Ok(()), |topic| message_type::check(topic, kind, properties))
    }

    fn check_kind(&self, kind: Kind) -> Result<(), BrokerError> {
        let prepared = sys_flag::transaction(self.wish.sys_flag) == sys_flag::TRANSACTION_PREPARED;
        match kind {
            Kind::Prepared => Err(stored::illegal("a batch cannot be part of a transaction (TRAN_MSG)")),
            Kind::PreparedDelayed => Err(stored::illegal(
                "a message cannot be delayed (DELAY, TIMER_*) and part of a transaction (TRAN_MSG)",
            )),
            Kind::Normal if prepared => Err(stored::illegal(
                "its system flag says that it is part of one and its properties do not (TRAN_MSG)",
            )),
            Kind::Delayed(_) => Err(BrokerError::IllegalMessage(
                "messages of a batch cannot be delayed (DELAY, TIMER_*)".to_owned(),
            )),
            Kind::Normal => Ok(()),
        }
    }

    pub(super) fn message(&self, flag: i32, body: Bytes, properties: Bytes) -> NewMessage {
        let wish = self.wish;
        let multi_tags = if self.place.multi_tags { sys_flag::MULTI_TAGS } else { 0 };
        NewMessage {
            topic: self.topic.clone(),
            queue_id: self.place.queue,
            flag,
            sys_flag: wish.sys_flag & !SERVERS_FLAGS | multi_tags,
            born_timestamp: wish.born_timestamp,
            born_host: self.wish.client,
            store_timestamp: 0,
            store_host: self.broker.identity.store_host,
            reconsume_times: wish.reconsume_times,
            prepared_transaction_offset: 0,
            body,
            properties,
        }
    }
}

fn too_long(what: &str, length: usize, max: usize) -> BrokerError {
    BrokerError::IllegalMessage(format!("the message {what} has a length of {length}, the limit is {max}"))
}
