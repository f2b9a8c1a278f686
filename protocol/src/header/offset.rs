//! Offsets: codes 14, 15 (a consumer's), 29, 30, 31, 32 (a queue's).

use super::header;
use crate::Name;

header! {
    /// 14.
    QueryConsumerOffsetHeader {
        /// Whose offset.
        "consumerGroup" => consumer_group: Name;
        /// In which topic.
        "topic" => topic: Name;
        /// In which queue.
        "queueId" => queue_id: i32;
        /// Whether a young queue's unknown offset may be answered with 0; absent means yes.
        "setZeroIfNotFound" => set_zero_if_not_found: Option<bool>;
    }
}

header! {
    /// 15.
    UpdateConsumerOffsetHeader {
        /// Whose offset.
        "consumerGroup" => consumer_group: Name;
        /// In which topic.
        "topic" => topic: Name;
        /// In which queue.
        "queueId" => queue_id: i32;
        /// The next offset to consume.
        "commitOffset" => commit_offset: i64;
    }
}

header! {
    /// 30.
    GetMaxOffsetHeader {
        /// In which topic.
        "topic" => topic: Name;
        /// In which queue.
        "queueId" => queue_id: i32;
        /// Whether only what consumers may see counts.
        "committed" => committed: bool = true;
    }
}

header! {
    /// 31.
    GetMinOffsetHeader {
        /// In which topic.
        "topic" => topic: Name;
        /// In which queue.
        "queueId" => queue_id: i32;
    }
}

header! {
    /// 29.
    SearchOffsetHeader {
        /// In which topic.
        "topic" => topic: Name;
        /// In which queue.
        "queueId" => queue_id: i32;
        /// Store time, ms.
        "timestamp" => timestamp: i64;
        /// `LOWER` (the default): the first at or after; `UPPER`: the last at or before.
        "boundaryType" => boundary_type: Option<String>;
    }
}

impl SearchOffsetHeader {
    /// Whether the last message at or before the timestamp is wanted.
    pub fn is_upper(&self) -> bool {
        self.boundary_type.as_deref().is_some_and(|kind| kind.eq_ignore_ascii_case("upper"))
    }
}

header! {
    /// 32.
    GetEarliestStoreTimeHeader {
        /// In which topic.
        "topic" => topic: Name;
        /// In which queue.
        "queueId" => queue_id: i32;
    }
}

header! {
    /// The answer to 14, 29, 30 and 31.
    OffsetResponseHeader {
        /// The offset.
        "offset" => offset: i64;
    }
}

header! {
    /// The answer to 32.
    TimestampResponseHeader {
        /// Store time, ms; -1 if there is no message.
        "timestamp" => timestamp: i64;
    }
}
