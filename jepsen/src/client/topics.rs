//! What the owner of a topic asks: to make, change and delete it, and to know what became of that.

use super::{ASK_TIMEOUT, Client, REFUSALS, request};
use crate::connection::CallError;

const UPDATE_AND_CREATE_TOPIC: i32 = 17;
const DELETE_TOPIC_IN_BROKER: i32 = 215;

impl Client {
    /// Creates a topic, or gives it another number of queues, once.
    ///
    /// # Errors
    /// See [`CallError`]; a clear refusal counts as not sent.
    pub async fn change_topic(&self, broker: &str, topic: &str, queues: u32) -> Result<(), CallError> {
        let queues = queues.to_string();
        let fields = [
            ("topic", topic),
            ("defaultTopic", "TBW102"),
            ("readQueueNums", &queues),
            ("writeQueueNums", &queues),
            ("perm", "6"),
            ("topicFilterType", "SINGLE_TAG"),
            ("topicSysFlag", "0"),
            ("order", "false"),
        ];
        self.once(broker, UPDATE_AND_CREATE_TOPIC, fields).await
    }

    /// Deletes a topic, once.
    ///
    /// # Errors
    /// See [`CallError`]; a clear refusal counts as not sent.
    pub async fn delete_topic(&self, broker: &str, topic: &str) -> Result<(), CallError> {
        self.once(broker, DELETE_TOPIC_IN_BROKER, [("topic", topic)]).await
    }

    async fn once<'a>(
        &self,
        broker: &str,
        code: i32,
        fields: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), CallError> {
        let connection = self.connection(broker).await?;
        let answer = connection.call(request(code, fields), ASK_TIMEOUT).await?;
        let why = || format!("request {code}: code {}", answer.code);
        match answer.code {
            0 => Ok(()),
            refused if REFUSALS.contains(&refused) => Err(CallError::NotSent(why())),
            _ => Err(CallError::Unknown(why())),
        }
    }
}
