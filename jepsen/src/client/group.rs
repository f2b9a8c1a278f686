//! What a member of a consumer group asks: to belong to it, who else does, where the group goes on.

use anyhow::{Context, Result, bail};
use bytes::Bytes;

use super::{ASK_TIMEOUT, Client, request};
use crate::connection::CallError;

const QUERY_CONSUMER_OFFSET: i32 = 14;
const UPDATE_CONSUMER_OFFSET: i32 = 15;
const HEART_BEAT: i32 = 34;
const GET_CONSUMER_LIST: i32 = 38;
/// QUERY_NOT_FOUND: the group has no offset in this queue.
const QUERY_NOT_FOUND: i32 = 22;

impl Client {
    /// Makes this client's group a consumer of the topics, at that broker.
    ///
    /// # Errors
    /// When the broker does not answer with success.
    pub async fn subscribe(&self, broker: &str, topics: &[String]) -> Result<()> {
        let subscriptions: Vec<_> = topics
            .iter()
            .map(|topic| {
                serde_json::json!({
                    "classFilterMode": false, "topic": topic, "subString": "*", "tagsSet": [], "codeSet": [],
                    "subVersion": 1, "expressionType": "TAG",
                })
            })
            .collect();
        let body = serde_json::json!({
            "clientID": self.member,
            "producerDataSet": [],
            "consumerDataSet": [{
                "groupName": self.group, "consumeType": "CONSUME_ACTIVELY", "messageModel": "CLUSTERING",
                "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET", "subscriptionDataSet": subscriptions,
                "unitMode": false,
            }],
        });
        let mut frame = request(HEART_BEAT, []);
        frame.body = Bytes::from(serde_json::to_vec(&body)?);
        self.ask(broker, frame).await.map(drop)
    }

    /// The members of this client's group, sorted.
    ///
    /// # Errors
    /// When the broker does not answer, or not with a list.
    pub async fn members(&self, broker: &str) -> Result<Vec<String>> {
        let answer = self.ask(broker, request(GET_CONSUMER_LIST, [("consumerGroup", &*self.group)])).await?;
        let body: serde_json::Value =
            serde_json::from_slice(&answer.body).context("consumer list is not JSON")?;
        let ids = body["consumerIdList"].as_array().with_context(|| format!("no consumerIdList: {body}"))?;
        let mut ids: Vec<String> = ids.iter().filter_map(|id| Some(id.as_str()?.to_owned())).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Where this client's group goes on; 0 when it has no offset there.
    ///
    /// # Errors
    /// When the broker does not answer, or not with an offset.
    pub async fn committed(&self, broker: &str, topic: &str, queue: u32) -> Result<u64> {
        let queue = queue.to_string();
        let fields = [("consumerGroup", self.group.as_str()), ("topic", topic), ("queueId", &queue)];
        let connection = self.connection(broker).await?;
        let answer = connection.call(request(QUERY_CONSUMER_OFFSET, fields), ASK_TIMEOUT).await?;
        match answer.code {
            0 => answer
                .ext
                .get("offset")
                .and_then(|text| text.parse().ok())
                .context("an answer without offset"),
            QUERY_NOT_FOUND => Ok(0),
            other => bail!("offset of {topic} queue {queue} at {broker}: code {other}"),
        }
    }

    /// Commits where this client's group goes on.
    ///
    /// # Errors
    /// See [`CallError`]: after any error but [`CallError::NotSent`] it may take effect.
    pub async fn commit(&self, broker: &str, topic: &str, queue: u32, offset: u64) -> Result<(), CallError> {
        let (queue, offset) = (queue.to_string(), offset.to_string());
        let fields = [
            ("consumerGroup", self.group.as_str()),
            ("topic", topic),
            ("queueId", &queue),
            ("commitOffset", &offset),
        ];
        let connection = self.connection(broker).await?;
        let answer = connection.call(request(UPDATE_CONSUMER_OFFSET, fields), ASK_TIMEOUT).await?;
        if answer.code == 0 { Ok(()) } else { Err(CallError::Unknown(format!("code {}", answer.code))) }
    }
}
