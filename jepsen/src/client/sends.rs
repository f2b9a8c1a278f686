//! Sends, each made once.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use folio_protocol::frame::{FLAG_ONEWAY, Frame};

use super::{Client, judge_send, outcome_of, request};
use crate::connection::{CallError, Connection};
use crate::history::Outcome;

const SEND_MESSAGE_V2: i32 = 310;
/// The system flag of a half message.
const PREPARED: &str = "4";

/// One message, as a client sends it.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its queue.
    pub queue: u32,
    /// What RocketMQ's clients name it by: the same one on a second try says that it is the same message.
    pub unique_key: String,
    /// Further properties.
    pub properties: Vec<(&'static str, String)>,
    /// Whether it is the half message of a transaction.
    pub is_half: bool,
    /// Its body.
    pub body: Vec<u8>,
}

impl Client {
    /// Sends one message once. `unique_key` is what RocketMQ's clients name a message by: the same
    /// one on a second try says that it is the same message.
    pub async fn send(
        &self,
        broker: &str,
        topic: &str,
        queue: u32,
        unique_key: &str,
        body: Vec<u8>,
    ) -> Outcome {
        self.send_message(broker, &plain(topic, queue, unique_key, body)).await.0
    }

    /// Sends one message once; with the answer, if there is one.
    pub async fn send_message(&self, broker: &str, message: &Message) -> (Outcome, Option<Frame>) {
        let connection = match self.connection(broker).await {
            Ok(connection) => connection,
            Err(error) => return (outcome_of(error), None),
        };
        match connection.call(self.send_request(message), self.patience).await {
            Ok(answer) => (judge_send(&answer), Some(answer)),
            Err(error) => {
                if self.closes && matches!(error, CallError::Unknown(_)) {
                    self.close(&connection);
                }
                (outcome_of(error), None)
            }
        }
    }

    /// Sends one message that nobody answers: its outcome stays unknown, or it never left.
    pub async fn send_one_way(
        &self,
        broker: &str,
        topic: &str,
        queue: u32,
        unique_key: &str,
        body: Vec<u8>,
    ) -> Outcome {
        let mut frame = self.send_request(&plain(topic, queue, unique_key, body));
        frame.flag |= FLAG_ONEWAY;
        let posted = match self.connection(broker).await {
            Ok(connection) => connection.post(frame).await,
            Err(error) => Err(error),
        };
        match posted {
            Ok(()) => Outcome::Unknown { error: "one-way: nobody answers".to_owned() },
            Err(error) => outcome_of(error),
        }
    }

    fn close(&self, connection: &Arc<Connection>) {
        connection.close();
        self.connections.lock().retain(|_, other| !Arc::ptr_eq(other, connection));
    }

    fn send_request(&self, message: &Message) -> Frame {
        // Each attempt says when it was made, as RocketMQ's clients have it.
        let made_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let (queue, made_ms) = (message.queue.to_string(), made_ms.to_string());
        let mut properties = format!("UNIQ_KEY\u{1}{}\u{2}WAIT\u{1}true", message.unique_key);
        for (name, value) in &message.properties {
            properties.push_str(&format!("\u{2}{name}\u{1}{value}"));
        }
        let fields = [
            ("a", self.group.as_str()),
            ("b", &message.topic),
            ("c", "TBW102"),
            ("d", "4"),
            ("e", &queue),
            ("f", if message.is_half { PREPARED } else { "0" }),
            ("g", &made_ms),
            ("h", "0"),
            ("i", &properties),
            ("j", "0"),
            ("k", "false"),
            ("m", "false"),
        ];
        let mut frame = request(SEND_MESSAGE_V2, fields);
        frame.body = Bytes::from(message.body.clone());
        frame
    }
}

fn plain(topic: &str, queue: u32, unique_key: &str, body: Vec<u8>) -> Message {
    let (topic, unique_key) = (topic.to_owned(), unique_key.to_owned());
    Message { topic, queue, unique_key, body, ..Message::default() }
}
