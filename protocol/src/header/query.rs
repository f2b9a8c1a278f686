//! Looking messages up: codes 12 and 33.

use super::header;
use crate::Name;

header! {
    /// 12.
    QueryMessageHeader {
        /// In which topic.
        "topic" => topic: Name;
        /// The key.
        "key" => key: String;
        /// At most how many.
        "maxNum" => max_num: i32;
        /// Stored at or after, ms.
        "beginTimestamp" => begin_timestamp: i64;
        /// Stored at or before, ms.
        "endTimestamp" => end_timestamp: i64;
        /// Whether the key is a UNIQ_KEY.
        "_UNIQUE_KEY_QUERY" => unique_key_query: bool = false;
    }
}

header! {
    /// The answer to 12.
    QueryMessageResponseHeader {
        /// When the index changed last, ms.
        "indexLastUpdateTimestamp" => index_last_update_timestamp: i64;
        /// Up to which position of the log it reaches.
        "indexLastUpdatePhyoffset" => index_last_update_phyoffset: i64;
    }
}

header! {
    /// 33.
    ViewMessageHeader {
        /// The message's position in the commit log.
        "offset" => offset: i64;
        /// Its topic.
        "topic" => topic: Option<Name>;
    }
}
