//! POP: messages for a while, and what ends that, as RocketMQ's clients ask for it.
//!
//! A handle has no request of its own: a client makes it of the answer to a pop, or of that to a change, and reads it where the message has it
//! (`POP_CK`), as retries do. Its parts have blanks between them: start, pop time, invisible time, revive queue, retry flag, broker, queue, offset.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use folio_protocol::frame::Frame;

use super::{ASK_TIMEOUT, Client, request};
use crate::connection::CallError;
use crate::stored::{self, StoredMessage};

const POP_MESSAGE: i32 = 200_050;
const ACK_MESSAGE: i32 = 200_051;
const CHANGE_INVISIBLE_TIME: i32 = 200_053;
/// NO_MESSAGE: the message is not in flight by that handle.
const NO_MESSAGE: i32 = 208;
/// POLLING_FULL and POLLING_TIMEOUT: there was nothing.
const NOTHING: [i32; 2] = [209, 210];
/// The broker's name, as it is in handles.
const BROKER: &str = "broker-a";
/// The retry flag of what comes by the topic itself.
const NORMAL: &str = "0";

/// What a consumer asks for.
#[derive(Debug, Clone)]
pub struct PopRequest {
    /// The topic.
    pub topic: String,
    /// The queue; -1 for any.
    pub queue: i32,
    /// At most how many messages.
    pub messages_max: u64,
    /// For how long nobody else of the group is given them, ms.
    pub invisible_ms: u64,
    /// How long the broker may wait for a message.
    pub poll: Duration,
    /// The attempt of a group that consumes in order.
    pub attempt: Option<String>,
}

/// A handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handle {
    /// First offset of its batch.
    pub start: u64,
    /// When it was popped, ms since the epoch.
    pub popped_ms: u64,
    /// For how long it is in flight, ms.
    pub invisible_ms: u64,
    /// Tells whether the group consumes in order.
    pub revive_queue: i64,
    /// Which topic it is of.
    pub flag: String,
    /// The queue.
    pub queue: u32,
    /// Its offset.
    pub offset: u64,
}

/// A message that a consumer was given.
#[derive(Debug, Clone)]
pub struct PoppedMessage {
    /// The message.
    pub message: StoredMessage,
    /// By what it is acknowledged.
    pub handle: Handle,
    /// How often it was given before.
    pub attempts: u32,
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, popped_ms, invisible_ms, revive_queue, flag, queue, offset } = self;
        write!(f, "{start} {popped_ms} {invisible_ms} {revive_queue} {flag} {BROKER} {queue} {offset}")
    }
}

impl Handle {
    fn parse(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split(' ').collect();
        ensure!(parts.len() >= 8, "a handle of {} parts: {text:?}", parts.len());
        let number = |at: usize| parts[at].parse().with_context(|| format!("part {at} of {text:?}"));
        Ok(Self {
            start: number(0)?,
            popped_ms: number(1)?,
            invisible_ms: number(2)?,
            revive_queue: number(3)?.cast_signed(),
            flag: parts[4].to_owned(),
            queue: u32::try_from(number(6)?).context("a queue")?,
            offset: number(7)?,
        })
    }

    /// Whether it is of a retry topic.
    #[must_use]
    pub fn is_retry(&self) -> bool {
        self.flag != NORMAL
    }

    /// The topic that it is of, of a group's messages of `topic`.
    fn topic(&self, group: &str, topic: &str) -> String {
        match self.flag.as_str() {
            NORMAL => topic.to_owned(),
            "1" => format!("%RETRY%{group}_{topic}"),
            _ => format!("%RETRY%{group}+{topic}"),
        }
    }

    /// The handle that replaces it after a change, as RocketMQ's Java client makes it.
    fn changed(&self, popped_ms: u64, invisible_ms: u64) -> Self {
        Self { start: self.offset, popped_ms, invisible_ms, ..self.clone() }
    }
}

impl Client {
    /// Pops once; nothing is an answer, too.
    ///
    /// # Errors
    /// See [`CallError`]: after any error but [`CallError::NotSent`] messages may be in flight, or may be soon.
    pub async fn pop(&self, broker: &str, wish: &PopRequest) -> Result<Vec<PoppedMessage>, CallError> {
        let poll_ms = wish.poll.as_millis().to_string();
        let (queue, max) = (wish.queue.to_string(), wish.messages_max.to_string());
        let (invisible_ms, born_ms) = (wish.invisible_ms.to_string(), now_ms().to_string());
        let mut fields = vec![
            ("consumerGroup", self.group.as_str()),
            ("topic", &wish.topic),
            ("queueId", &queue),
            ("maxMsgNums", &max),
            ("invisibleTime", &invisible_ms),
            ("pollTime", &poll_ms),
            ("bornTime", &born_ms),
            ("initMode", "0"),
            ("expType", "TAG"),
            ("exp", "*"),
        ];
        if let Some(attempt) = &wish.attempt {
            fields.extend([("order", "true"), ("attemptId", attempt.as_str())]);
        }
        let connection = self.connection(broker).await?;
        let answer = connection.call(request(POP_MESSAGE, fields), ASK_TIMEOUT + wish.poll).await?;
        match answer.code {
            0 => given(&answer).map_err(|error| {
                tracing::error!(
                    error = format!("{error:#}"),
                    "an answer to a pop that no client understands"
                );
                CallError::Unknown(format!("{error:#}"))
            }),
            code if NOTHING.contains(&code) => Ok(Vec::new()),
            code => Err(unknown(code, &answer)),
        }
    }

    /// Acknowledges a message once; whether it was in flight by this handle.
    ///
    /// # Errors
    /// See [`CallError`]: after any error but [`CallError::NotSent`] it may take effect.
    pub async fn ack_popped(&self, broker: &str, topic: &str, handle: &Handle) -> Result<bool, CallError> {
        let answer = self.ask_of_handle(broker, ACK_MESSAGE, (topic, handle), None).await?;
        match answer.code {
            0 => Ok(true),
            NO_MESSAGE => Ok(false),
            code => Err(unknown(code, &answer)),
        }
    }

    /// Asks once that a message becomes visible so long from now; its new handle, unless it was not in flight by this one.
    ///
    /// # Errors
    /// As those of [`Self::ack_popped`].
    pub async fn change_popped(
        &self,
        broker: &str,
        (topic, handle): (&str, &Handle),
        invisible_ms: u64,
    ) -> Result<Option<Handle>, CallError> {
        let answer =
            self.ask_of_handle(broker, CHANGE_INVISIBLE_TIME, (topic, handle), Some(invisible_ms)).await?;
        let number = |name| answer.ext.get(name)?.parse().ok();
        match (answer.code, number("popTime"), number("invisibleTime")) {
            (0, Some(popped_ms), Some(invisible_ms)) => Ok(Some(handle.changed(popped_ms, invisible_ms))),
            (NO_MESSAGE, ..) => Ok(None),
            (code, ..) => Err(unknown(code, &answer)),
        }
    }

    async fn ask_of_handle(
        &self,
        broker: &str,
        code: i32,
        (topic, handle): (&str, &Handle),
        invisible_ms: Option<u64>,
    ) -> Result<Frame, CallError> {
        let topic = handle.topic(&self.group, topic);
        let (queue, offset, text) = (handle.queue.to_string(), handle.offset.to_string(), handle.to_string());
        let invisible_ms = invisible_ms.map(|ms| ms.to_string());
        let fields = [
            ("consumerGroup", self.group.as_str()),
            ("topic", &topic),
            ("queueId", &queue),
            ("extraInfo", &text),
            ("offset", &offset),
        ];
        let further = invisible_ms.as_deref().map(|ms| ("invisibleTime", ms));
        self.ask_once(broker, request(code, fields.into_iter().chain(further))).await
    }
}

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis())
}

fn unknown(code: i32, answer: &Frame) -> CallError {
    CallError::Unknown(format!("code {code}: {}", answer.remark.as_deref().unwrap_or("no remark")))
}

/// What an answer says of a queue of the topic itself: `0 queue value`, parts with `;` between them.
fn of_queue(text: &str, queue: u32) -> Option<u64> {
    let key = format!("{NORMAL} {queue} ");
    text.split(';').find_map(|part| part.strip_prefix(&key))?.parse().ok()
}

/// The messages of an answer, with their handles.
fn given(answer: &Frame) -> Result<Vec<PoppedMessage>> {
    let number = |name: &str| -> Result<u64> {
        let text = answer.ext.get(name).with_context(|| format!("no {name}"))?;
        text.parse().with_context(|| format!("{name} is {text:?}"))
    };
    let text = |name: &str| answer.ext.get(name).unwrap_or_default();
    let (starts, counts) = (text("startOffsetInfo"), text("orderCountInfo"));
    let (popped_ms, invisible_ms) = (number("popTime")?, number("invisibleTime")?);
    let revive_queue = number("reviveQid")?.cast_signed();
    let one = |message: StoredMessage| {
        let handle = match message.property("POP_CK") {
            Some(text) => Handle::parse(text)?,
            None => Handle {
                start: of_queue(starts, message.queue)
                    .with_context(|| format!("queue {} has no start in {starts:?}", message.queue))?,
                popped_ms,
                invisible_ms,
                revive_queue,
                flag: NORMAL.to_owned(),
                queue: message.queue,
                offset: message.offset,
            },
        };
        let counted = of_queue(counts, message.queue).and_then(|count| u32::try_from(count).ok());
        Ok(PoppedMessage { attempts: counted.unwrap_or(message.times), handle, message })
    };
    stored::parse_all(&answer.body)?.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(flag: &str) -> Handle {
        let flag = flag.to_owned();
        Handle { start: 4, popped_ms: 100, invisible_ms: 60, revive_queue: 0, flag, queue: 3, offset: 5 }
    }

    #[test]
    fn a_handle_that_is_written_is_read() {
        assert_eq!(handle("1").to_string(), "4 100 60 0 1 broker-a 3 5");
        assert_eq!(Handle::parse(&handle("1").to_string()).unwrap(), handle("1"));
        for wrong in ["", "4 100 60 0 1 broker-a 3", "x 100 60 0 1 broker-a 3 5"] {
            assert!(Handle::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_handle_says_which_topic_it_is_of() {
        let topics = ["0", "1", "2"].map(|flag| handle(flag).topic("g", "t"));
        assert_eq!(topics, ["t", "%RETRY%g_t", "%RETRY%g+t"]);
        assert!(handle("1").is_retry() && !handle("0").is_retry());
    }

    #[test]
    fn an_answer_says_something_of_each_queue() {
        assert_eq!(of_queue("0 1 7;1 0 9;0 12 8", 12), Some(8));
        assert_eq!(of_queue("0 1 7;1 0 9", 0), None);
    }
}
