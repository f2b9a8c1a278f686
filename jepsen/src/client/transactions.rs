//! What a producer of transactions says.

use bytes::Bytes;
use folio_protocol::frame::{FLAG_ONEWAY, Frame};

use super::{Client, request};
use crate::connection::CallError;

const HEART_BEAT: i32 = 34;
const END_TRANSACTION: i32 = 37;
const COMMIT: &str = "8";
const ROLLBACK: &str = "12";
const UNKNOWN: &str = "0";

/// The end of a transaction.
#[derive(Debug, Clone)]
pub struct EndTransaction {
    /// The topic of its message.
    pub topic: String,
    /// The position of its half message, as its producer was told.
    pub position: u64,
    /// The queue offset, as it was told.
    pub queue_offset: u64,
    /// The unique key of its message.
    pub unique_key: String,
    /// Whether it is committed; `None` where its producer does not know yet.
    pub commits: Option<bool>,
    /// Whether that answers a question.
    pub is_answer: bool,
}

impl Client {
    /// Makes this client a producer of its group, at that broker: it may be asked then.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn produce(&self, broker: &str) -> Result<(), CallError> {
        let body = serde_json::json!({
            "clientID": self.member,
            "producerDataSet": [{"groupName": self.group}],
            "consumerDataSet": [],
        });
        let mut frame = request(HEART_BEAT, []);
        frame.body = Bytes::from(body.to_string());
        self.ask_once(broker, frame).await.map(drop)
    }

    /// Ends a transaction, once, and waits for the answer.
    ///
    /// # Errors
    /// See [`CallError`]; an answer with an error code is an answer.
    pub async fn end_transaction(&self, broker: &str, end: &EndTransaction) -> Result<Frame, CallError> {
        self.ask_once(broker, self.end_request(end)).await
    }

    /// The same, and nobody answers.
    ///
    /// # Errors
    /// [`CallError::NotSent`] when it never left.
    pub async fn end_one_way(&self, broker: &str, end: &EndTransaction) -> Result<(), CallError> {
        let mut frame = self.end_request(end);
        frame.flag |= FLAG_ONEWAY;
        self.connection(broker).await?.post(frame).await
    }

    fn end_request(&self, end: &EndTransaction) -> Frame {
        let (position, queue_offset) = (end.position.to_string(), end.queue_offset.to_string());
        let wish = end.commits.map_or(UNKNOWN, |commits| if commits { COMMIT } else { ROLLBACK });
        let fields = [
            ("topic", end.topic.as_str()),
            ("producerGroup", self.group.as_str()),
            ("tranStateTableOffset", &queue_offset),
            ("commitLogOffset", &position),
            ("commitOrRollback", wish),
            ("fromTransactionCheck", if end.is_answer { "true" } else { "false" }),
            ("msgId", &end.unique_key),
            ("transactionId", &end.unique_key),
        ];
        request(END_TRANSACTION, fields)
    }

    /// The group of this client.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }
}
