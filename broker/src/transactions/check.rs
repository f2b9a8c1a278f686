//! The question to a producer what became of its transaction.

use bytes::Bytes;
use folio_protocol::ids::OffsetMessageId;
use folio_protocol::message::MessageView;
use folio_protocol::properties::UNIQUE_KEY;

/// What a producer is asked.
#[derive(Debug, Clone)]
pub struct TransactionCheck {
    /// The transaction's id: the position of its half message, as the producer was told.
    pub position: u64,
    /// The queue offset, as it was told.
    pub queue_offset: u64,
    /// The real topic.
    pub topic: String,
    /// The message's unique key; the transaction's id for the producer's application.
    pub unique_key: Option<String>,
    /// The half message's id, as it was told.
    pub offset_id: String,
    /// The message with its real topic and queue, as it is stored.
    pub message: Bytes,
}

impl TransactionCheck {
    /// About a message as its producer is shown it.
    pub(super) fn of(message: Bytes) -> Option<TransactionCheck> {
        let view = MessageView::parse(&message).ok()?;
        let id = OffsetMessageId { host: view.store_host(), position: view.physical_offset() };
        Some(TransactionCheck {
            position: view.physical_offset(),
            queue_offset: view.queue_offset(),
            topic: view.topic().to_owned(),
            unique_key: view.property(UNIQUE_KEY).map(str::to_owned),
            offset_id: id.to_string(),
            message,
        })
    }
}
