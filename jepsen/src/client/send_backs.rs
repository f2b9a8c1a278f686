//! What a consumer says that could not handle a message.

use super::{Client, request};
use crate::connection::CallError;

const CONSUMER_SEND_MSG_BACK: i32 = 36;
/// RocketMQ 5.3: a client since 3.4.9 says how often it wants a message again.
const VERSION: i32 = 477;

/// A message that could not be handled.
#[derive(Debug, Clone)]
pub struct SendBackRequest<'a> {
    /// The topic that it was sent to first.
    pub topic: &'a str,
    /// Its position in the log.
    pub position: u64,
    /// The level of its delay; 0: by the number of retries; below 0: a dead letter.
    pub level: i32,
    /// How often it may come again.
    pub times_max: u32,
}

impl Client {
    /// Sends a message back, once.
    ///
    /// # Errors
    /// See [`CallError`]: after any error but [`CallError::NotSent`] it may take effect.
    pub async fn send_back(&self, broker: &str, wish: &SendBackRequest<'_>) -> Result<(), CallError> {
        let (position, level) = (wish.position.to_string(), wish.level.to_string());
        let times_max = wish.times_max.to_string();
        let fields = [
            ("offset", position.as_str()),
            ("group", self.group.as_str()),
            ("delayLevel", &level),
            ("originTopic", wish.topic),
            ("unitMode", "false"),
            ("maxReconsumeTimes", &times_max),
        ];
        let mut frame = request(CONSUMER_SEND_MSG_BACK, fields);
        frame.version = VERSION;
        let answer = self.ask_once(broker, frame).await?;
        if answer.code == 0 { Ok(()) } else { Err(CallError::Unknown(format!("code {}", answer.code))) }
    }
}
