//! A stored message as the command line shows it.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Result;
use bytes::Bytes;
use folio_protocol::flags::sys_flag;
use folio_protocol::ids::OffsetMessageId;
use folio_protocol::message::{MessageView, Messages};
use folio_protocol::properties;
use serde::Serialize;

use super::table;

/// A stored message. Its body is in one of two fields: as text, or in hexadecimal digits where it is no text.
#[derive(Debug, Clone, Serialize)]
pub(super) struct StoredMessage {
    /// The id by which `folio message show` finds it.
    pub(super) message_id: String,
    pub(super) topic: String,
    pub(super) queue: u32,
    pub(super) offset: u64,
    /// When it was stored, ms since the epoch.
    stored_ms: i64,
    /// When its client sent it by that one's clock, ms since the epoch.
    pub(super) born_ms: i64,
    born_host: String,
    /// How often it failed before.
    pub(super) reconsume_times: i32,
    pub(super) flag: i32,
    /// Whether its client compressed the body: it is shown as it was sent.
    compressed: bool,
    pub(super) properties: BTreeMap<String, String>,
    body_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
    #[serde(skip)]
    pub(super) body: Bytes,
    #[serde(skip)]
    pub(super) sys_flag: i32,
}

impl StoredMessage {
    /// All messages of an answer.
    pub(super) fn all(body: &Bytes) -> Result<Vec<StoredMessage>> {
        Messages::new(body).map(|message| Ok(StoredMessage::of(&message?.1, body))).collect()
    }

    fn of(message: &MessageView<'_>, bytes: &Bytes) -> StoredMessage {
        let id = OffsetMessageId { host: message.store_host(), position: message.physical_offset() };
        let compressed = message.sys_flag() & sys_flag::COMPRESSED != 0;
        let text = std::str::from_utf8(message.body()).ok().filter(|_| !compressed).map(str::to_owned);
        let hex = text.is_none().then(|| hex(message.body()));
        let said = properties::iter(message.properties());
        StoredMessage {
            message_id: id.to_string(),
            topic: message.topic().to_owned(),
            queue: message.queue_id(),
            offset: message.queue_offset(),
            stored_ms: message.store_timestamp(),
            born_ms: message.born_timestamp(),
            born_host: message.born_host().to_string(),
            reconsume_times: message.reconsume_times(),
            flag: message.flag(),
            compressed,
            properties: said.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            body_bytes: message.body().len(),
            text,
            hex,
            body: bytes.slice_ref(message.body()),
            sys_flag: message.sys_flag(),
        }
    }

    pub(super) fn property(&self, name: &str) -> &str {
        self.properties.get(name).map_or("", String::as_str)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Prints messages, one in a line, or all they have as JSON.
pub(super) fn print_all(messages: &[StoredMessage], json: bool) -> Result<()> {
    if json {
        say!("{}", serde_json::to_string_pretty(messages)?);
        return Ok(());
    }
    let rows = messages.iter().map(|message| {
        [
            message.topic.clone(),
            message.queue.to_string(),
            message.offset.to_string(),
            message.stored_ms.to_string(),
            message.reconsume_times.to_string(),
            message.body_bytes.to_string(),
            message.property(properties::UNIQUE_KEY).to_owned(),
            message.message_id.clone(),
        ]
    });
    table::print(
        ["TOPIC", "QUEUE", "OFFSET", "STORED MS", "RETRIES", "BYTES", "UNIQUE KEY", "MESSAGE ID"],
        rows,
    );
    Ok(())
}

/// Prints all that a message has.
pub(super) fn print_one(message: &StoredMessage, json: bool) -> Result<()> {
    if json {
        say!("{}", serde_json::to_string_pretty(message)?);
        return Ok(());
    }
    say!("message id       {}", message.message_id);
    say!("topic            {}", message.topic);
    say!("queue, offset    {}, {}", message.queue, message.offset);
    say!("stored           {} ms", message.stored_ms);
    say!("born             {} ms, at {}", message.born_ms, message.born_host);
    say!("retries          {}", message.reconsume_times);
    for (name, value) in &message.properties {
        say!("property         {name} = {value}");
    }
    let kind = if message.compressed { ", compressed by its client" } else { "" };
    say!("body             {} bytes{kind}", message.body_bytes);
    say!("{}", message.text.as_ref().or(message.hex.as_ref()).map_or("", String::as_str));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_no_text_is_shown_in_digits() {
        assert_eq!(hex(&[0, 0x0a, 0xff]), "000aff");
    }
}
