//! POP: codes 200050 to 200055. JSON headers only, as their codes exceed
//! the binary header's 16 bits.

use super::header;
use crate::Name;

header! {
    /// 200050.
    PopMessageHeader {
        /// Who pops.
        "consumerGroup" => consumer_group: Name;
        /// From which topic.
        "topic" => topic: Name;
        /// From which queue; -1 for any.
        "queueId" => queue_id: i32;
        /// At most how many.
        "maxMsgNums" => max_msg_nums: i32;
        /// How long nobody else sees them, ms.
        "invisibleTime" => invisible_time: i64;
        /// How long the server may hold the request, ms.
        "pollTime" => poll_time: i64;
        /// When the client asked, ms.
        "bornTime" => born_time: i64;
        /// Where a new group starts: 0 first message, 1 after the last.
        "initMode" => init_mode: i32;
        /// `TAG` or `SQL92`.
        "expType" => expression_type: Option<String>;
        /// The filter expression.
        "exp" => expression: Option<String>;
        /// Whether the group consumes in order.
        "order" => order: Option<bool>;
        /// Tells a repeated request from a new one.
        "attemptId" => attempt_id: Option<String>;
    }
}

header! {
    /// The answer to 200050.
    PopMessageResponseHeader {
        /// When they were popped, ms.
        "popTime" => pop_time: i64;
        /// How long nobody else sees them, ms.
        "invisibleTime" => invisible_time: i64;
        /// Part of the handle; 999 for ordered groups.
        "reviveQid" => revive_queue_id: i32;
        /// How many are left.
        "restNum" => rest_num: i64;
        /// `retryFlag queueId startOffset`, joined by `;`.
        "startOffsetInfo" => start_offset_info: Option<String>;
        /// `retryFlag queueId offset,offset`, joined by `;`.
        "msgOffsetInfo" => msg_offset_info: Option<String>;
        /// `retryFlag queueId attempts`, joined by `;`.
        "orderCountInfo" => order_count_info: Option<String>;
    }
}

header! {
    /// 200051.
    AckMessageHeader {
        /// Who popped it.
        "consumerGroup" => consumer_group: Name;
        /// From which topic.
        "topic" => topic: Name;
        /// From which queue.
        "queueId" => queue_id: i32;
        /// The handle.
        "extraInfo" => extra_info: String;
        /// The message's queue offset.
        "offset" => offset: i64;
    }
}

header! {
    /// 200053.
    ChangeInvisibleTimeHeader {
        /// Who popped it.
        "consumerGroup" => consumer_group: Name;
        /// From which topic.
        "topic" => topic: Name;
        /// From which queue.
        "queueId" => queue_id: i32;
        /// The handle.
        "extraInfo" => extra_info: String;
        /// The message's queue offset.
        "offset" => offset: i64;
        /// How long from now nobody else sees it, ms.
        "invisibleTime" => invisible_time: i64;
    }
}

header! {
    /// The answer to 200053: the client builds the new handle from it.
    ChangeInvisibleTimeResponseHeader {
        /// When it now counts as popped, ms.
        "popTime" => pop_time: i64;
        /// How long nobody else sees it, ms.
        "invisibleTime" => invisible_time: i64;
        /// Part of the handle.
        "reviveQid" => revive_queue_id: i32;
    }
}

header! {
    /// 200054: tell me when there is something to pop.
    NotificationHeader {
        /// Who asks.
        "consumerGroup" => consumer_group: Name;
        /// Of which topic.
        "topic" => topic: Name;
        /// Of which queue; -1 for any.
        "queueId" => queue_id: i32;
        /// How long the server may hold the request, ms.
        "pollTime" => poll_time: i64;
        /// When the client asked, ms.
        "bornTime" => born_time: i64;
        /// Whether the group consumes in order.
        "order" => order: Option<bool>;
        /// Tells a repeated request from a new one.
        "attemptId" => attempt_id: Option<String>;
        /// `TAG` or `SQL92`.
        "expType" => expression_type: Option<String>;
        /// The filter expression.
        "exp" => expression: Option<String>;
    }
}

header! {
    /// The answer to 200054.
    NotificationResponseHeader {
        /// Whether there is something.
        "hasMsg" => has_message: bool;
        /// Whether too many wait already.
        "pollingFull" => polling_full: Option<bool>;
    }
}

header! {
    /// 200052: the next messages of a queue, which stay as they are.
    PeekMessageHeader {
        /// Who asks.
        "consumerGroup" => consumer_group: Name;
        /// Of which topic.
        "topic" => topic: Name;
        /// Of which queue; -1 for any.
        "queueId" => queue_id: i32;
        /// At most how many.
        "maxMsgNums" => max_msg_nums: i32;
    }
}

header! {
    /// 200055: how many requests wait.
    PollingInfoHeader {
        /// Who asks.
        "consumerGroup" => consumer_group: Name;
        /// For messages of which topic.
        "topic" => topic: Name;
        /// Of which queue; -1 for any.
        "queueId" => queue_id: i32;
    }
}

header! {
    /// The answer to 200055.
    PollingInfoResponseHeader {
        /// So many.
        "pollingNum" => polling_num: i32;
    }
}
