//! A producer and reader on the remoting protocol, which never hides an outcome.
//!
//! It knows NameServers, asks them for routes, keeps one connection per broker and goes on at
//! another broker when one is gone. It does **not** try a send again: whether that duplicates a
//! message is for the history to show, not for the client to paper over.

mod group;
mod pops;
mod send_backs;
mod sends;
mod topics;
mod transactions;

pub use pops::{Handle, PopRequest, PoppedMessage};
pub use send_backs::SendBackRequest;
pub use sends::Message;
pub use transactions::EndTransaction;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use folio_protocol::frame::Frame;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::connection::{Asked, CallError, Connection, Question};
use crate::history::Outcome;
use crate::stored::{self, StoredMessage};

/// How long an ordinary client lets a send take before it calls its outcome unknown.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// A producer that gives up so soon notices a leader that is paused and keeps its connections.
pub const IMPATIENCE: Duration = Duration::from_millis(400);
/// A client that sends again what was not answered waits so long before it does: RocketMQ's wait three seconds, and the
/// cluster takes an answer within one for one that reached its client.
pub const AGAIN_PATIENCE: Duration = Duration::from_millis(1500);
/// How long anything else may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// Request codes, as numbers: the wire is the contract.
mod code {
    pub(super) const PULL_MESSAGE: i32 = 11;
    pub(super) const GET_ROUTE: i32 = 105;
}

/// Answers to a send after which it certainly is not stored: SYSTEM_BUSY, MESSAGE_ILLEGAL, SERVICE_NOT_AVAILABLE,
/// NO_PERMISSION, TOPIC_NOT_EXIST, INVALID_PARAMETER, FLOW_CONTROL. All others leave it open.
const REFUSALS: [i32; 7] = [2, 13, 14, 16, 17, 29, 215];
/// Answers to a pull at the end of a queue: PULL_NOT_FOUND, PULL_RETRY_IMMEDIATELY.
const PULL_NOT_FOUND: i32 = 19;
const PULL_RETRY: i32 = 20;

/// Where the brokers of a topic are: broker id to address; id 0 is the leader.
pub type Route = BTreeMap<u64, String>;

/// PULL_OFFSET_MOVED: the offset has expired, or is not there yet.
const PULL_OFFSET_MOVED: i32 = 21;
/// An offset no queue reaches: a pull there is answered with the queue's end by a node that is sure.
const FAR_OFFSET: u64 = 1 << 60;

/// What a pull gave.
#[derive(Debug)]
pub struct Pulled {
    /// The messages, in order.
    pub messages: Vec<StoredMessage>,
    /// Where to go on.
    pub next: u64,
    /// The queue's first offset that has not expired.
    pub min: u64,
    /// The queue's next offset.
    pub max: u64,
}

/// One client process, as the cluster sees it.
pub struct Client {
    name_servers: Vec<String>,
    next_server: AtomicUsize,
    connections: Mutex<HashMap<String, Arc<Connection>>>,
    opened: AtomicU64,
    group: String,
    member: String,
    patience: Duration,
    closes: bool,
    asked: Asked,
}

impl Client {
    /// A client of these NameServers; connects when it has to.
    #[must_use]
    pub fn new(name_servers: Vec<String>, group: impl Into<String>) -> Self {
        let group = group.into();
        Self {
            member: format!("{group}@jepsen"),
            name_servers,
            next_server: AtomicUsize::new(0),
            connections: Mutex::new(HashMap::new()),
            opened: AtomicU64::new(0),
            group,
            patience: PATIENCE,
            closes: false,
            asked: None,
        }
    }

    /// This client, giving up a send after `patience`.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// This client, closing its connection when a send on it is given up, as RocketMQ's Java client does: a server can tell
    /// its second attempt from a new message then.
    #[must_use]
    pub fn closing(mut self, closes: bool) -> Self {
        self.closes = closes;
        self
    }

    /// This client, with somebody who is told what brokers ask it.
    #[must_use]
    pub fn asked(mut self, asked: mpsc::UnboundedSender<Question>) -> Self {
        self.asked = Some(asked);
        self
    }

    /// This client, as the member of its group with that id.
    #[must_use]
    pub fn with_member(mut self, member: impl Into<String>) -> Self {
        self.member = member.into();
        self
    }

    /// Asks the NameServers in turn where the topic is.
    ///
    /// # Errors
    /// When none of them knows.
    pub async fn route(&self, topic: &str) -> Result<Route> {
        let mut last = anyhow::anyhow!("no NameServer configured");
        for _ in 0..self.name_servers.len() {
            let at = self.next_server.fetch_add(1, Ordering::Relaxed) % self.name_servers.len();
            match self.route_from(&self.name_servers[at], topic).await {
                Ok(route) => return Ok(route),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Asks one NameServer where the topic is.
    ///
    /// # Errors
    /// When it does not answer, or does not know.
    pub async fn route_from(&self, name_server: &str, topic: &str) -> Result<Route> {
        let fields = [("topic", topic), ("acceptStandardJsonOnly", "true")];
        let answer = self.ask(name_server, request(code::GET_ROUTE, fields)).await?;
        let body: serde_json::Value = serde_json::from_slice(&answer.body).context("route is not JSON")?;
        let addresses = body["brokerDatas"][0]["brokerAddrs"].as_object();
        let addresses = addresses.with_context(|| format!("route of {topic} has no brokerAddrs: {body}"))?;
        let route = addresses
            .iter()
            .filter_map(|(id, address)| Some((id.parse().ok()?, address.as_str()?.to_owned())));
        Ok(route.collect())
    }

    /// Creates a topic, or waits until the one of that name is as asked.
    ///
    /// # Errors
    /// When the broker does not answer with success.
    pub async fn create_topic(&self, broker: &str, topic: &str, queues: u32) -> Result<()> {
        let made = self.change_topic(broker, topic, queues).await;
        made.with_context(|| format!("make the topic {topic} at {broker}"))
    }

    /// How many connections this client has opened so far.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Whether every connection it has used is open still.
    #[must_use]
    pub fn all_open(&self) -> bool {
        self.connections.lock().values().all(|connection| connection.is_open())
    }

    /// Pulls from one broker, whatever it leads or follows, without waiting for new messages.
    ///
    /// # Errors
    /// When it does not answer, answers with an error, or with messages that do not parse.
    pub async fn pull(&self, broker: &str, topic: &str, queue: u32, offset: u64) -> Result<Pulled> {
        self.pull_held(broker, topic, queue, offset, Duration::ZERO).await
    }

    /// The same, waiting so long at the broker for a new message.
    ///
    /// # Errors
    /// As those of [`Self::pull`].
    pub async fn pull_held(
        &self,
        broker: &str,
        topic: &str,
        queue: u32,
        offset: u64,
        hold: Duration,
    ) -> Result<Pulled> {
        let (queue, offset, wait) = (queue.to_string(), offset.to_string(), hold.as_millis().to_string());
        let fields = [
            ("consumerGroup", self.group.as_str()),
            ("topic", topic),
            ("queueId", &queue),
            ("queueOffset", &offset),
            ("maxMsgNums", "32"),
            // Subscription in the header, no commit; may be suspended or not.
            ("sysFlag", if hold.is_zero() { "4" } else { "6" }),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", &wait),
            ("subscription", "*"),
            ("subVersion", "1"),
            ("expressionType", "TAG"),
        ];
        let connection = self.connection(broker).await?;
        let answer = connection.call(request(code::PULL_MESSAGE, fields), ASK_TIMEOUT + hold).await?;
        let number = |key| -> Result<u64> {
            let text =
                answer.ext.get(key).with_context(|| format!("pull answer {} has no {key}", answer.code))?;
            text.parse().with_context(|| format!("pull answer's {key} is {text:?}"))
        };
        match answer.code {
            0 | PULL_NOT_FOUND | PULL_RETRY | PULL_OFFSET_MOVED => Ok(Pulled {
                messages: stored::parse_all(&answer.body)?,
                next: number("nextBeginOffset")?,
                min: number("minOffset")?,
                max: number("maxOffset")?,
            }),
            other => bail!(
                "pull of {topic} queue {queue} offset {offset} at {broker}: code {other}, {}",
                answer.remark.as_deref().unwrap_or("no remark")
            ),
        }
    }

    /// The queue's end, as only a node that has proved its leadership may tell it.
    ///
    /// # Errors
    /// When it does not answer, or could not be sure.
    pub async fn sure_end(&self, broker: &str, topic: &str, queue: u32) -> Result<u64> {
        let pulled = self.pull(broker, topic, queue, FAR_OFFSET).await?;
        if pulled.next == FAR_OFFSET {
            bail!("{broker} is not sure where {topic} queue {queue} ends")
        }
        Ok(pulled.next)
    }

    /// Asks a broker once.
    ///
    /// # Errors
    /// See [`CallError`]; an answer with an error code is an answer.
    pub async fn ask_once(&self, broker: &str, frame: Frame) -> Result<Frame, CallError> {
        self.connection(broker).await?.call(frame, ASK_TIMEOUT).await
    }

    /// Asks one address and takes any answer but success for an error.
    ///
    /// # Errors
    /// When it does not answer, or not with success.
    pub async fn ask(&self, address: &str, frame: Frame) -> Result<Frame> {
        let code = frame.code;
        let connection = self.connection(address).await?;
        let answer = connection
            .call(frame, ASK_TIMEOUT)
            .await
            .with_context(|| format!("request {code} at {address}"))?;
        if answer.code != 0 {
            let remark = answer.remark.as_deref().unwrap_or("no remark");
            bail!("request {code} at {address}: code {}, {remark}", answer.code);
        }
        Ok(answer)
    }

    async fn connection(&self, address: &str) -> Result<Arc<Connection>, CallError> {
        if let Some(open) = self.open_connection(address) {
            return Ok(open);
        }
        let opened = Arc::new(Connection::open(address, self.asked.clone()).await?);
        self.opened.fetch_add(1, Ordering::Relaxed);
        // Several calls may have connected at once: the first in stays, requests stay pipelined.
        if let Some(open) = self.open_connection(address) {
            return Ok(open);
        }
        self.connections.lock().insert(address.to_owned(), Arc::clone(&opened));
        Ok(opened)
    }

    fn open_connection(&self, address: &str) -> Option<Arc<Connection>> {
        self.connections.lock().get(address).filter(|connection| connection.is_open()).cloned()
    }
}

/// A request of these fields.
pub fn request<'a>(code: i32, fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Frame {
    let mut frame = Frame { code, ..Frame::default() };
    for (key, value) in fields {
        frame.ext.insert(key, value);
    }
    frame
}

fn outcome_of(error: CallError) -> Outcome {
    match error {
        CallError::NotSent(error) => Outcome::Fail { error },
        CallError::Unknown(error) => Outcome::Unknown { error },
    }
}

fn judge_send(answer: &Frame) -> Outcome {
    let remark = answer.remark.as_deref().unwrap_or("no remark");
    if answer.code == 0 {
        let offset = answer.ext.get("queueOffset").and_then(|text| text.parse().ok());
        return match offset {
            Some(offset) => {
                let position = answer.ext.get("msgId").and_then(position_of);
                Outcome::Ok { offset, position }
            }
            None => Outcome::Unknown { error: "acknowledged without a queueOffset".to_owned() },
        };
    }
    let error = format!("code {}: {remark}", answer.code);
    if REFUSALS.contains(&answer.code) { Outcome::Fail { error } } else { Outcome::Unknown { error } }
}

/// The log position in an offset message id: its last 16 hex digits, of 32 (IPv4) or 56 (IPv6).
fn position_of(message_id: &str) -> Option<u64> {
    let digits = message_id.get(message_id.len().checked_sub(16)?..)?;
    [32, 56].contains(&message_id.len()).then(|| u64::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: i32, fields: &[(&str, &str)]) -> Outcome {
        judge_send(&request(code, fields.iter().copied()))
    }

    #[test]
    fn an_acknowledgement_tells_offset_and_position() {
        let id = format!("7F00000100002A9F{:016X}", 4096);
        let told = answer(0, &[("queueOffset", "7"), ("msgId", &id)]);
        assert_eq!(told, Outcome::Ok { offset: 7, position: Some(4096) });
    }

    #[test]
    fn only_a_clear_refusal_is_a_failure() {
        for refusal in [2, 14] {
            assert!(matches!(answer(refusal, &[]), Outcome::Fail { .. }), "{refusal}");
        }
        for open in [1, 10, 11, 12] {
            assert!(matches!(answer(open, &[]), Outcome::Unknown { .. }), "{open}");
        }
        assert!(matches!(answer(0, &[]), Outcome::Unknown { .. }), "success without an offset");
    }

    #[test]
    fn a_message_id_of_another_shape_tells_no_position() {
        assert_eq!(position_of("short"), None);
        assert_eq!(position_of(&"F".repeat(33)), None);
        assert_eq!(position_of(&"g".repeat(32)), None);
    }
}
