//! Which requests go to the leader, wait for it, or may be asked twice.

use folio_protocol::code::RequestCode;

/// Whether only the leader may answer: what proposes, and what must see every proposal before it.
pub(crate) const fn needs_leader(code: RequestCode) -> bool {
    matches!(
        code,
        RequestCode::SendMessage
            | RequestCode::SendMessageV2
            | RequestCode::SendBatchMessage
            | RequestCode::SendReplyMessage
            | RequestCode::SendReplyMessageV2
            | RequestCode::ConsumerSendMessageBack
            | RequestCode::EndTransaction
            | RequestCode::RecallMessage
            | RequestCode::QueryConsumerOffset
            | RequestCode::UpdateConsumerOffset
            | RequestCode::GetMaxOffset
            | RequestCode::GetMinOffset
            | RequestCode::SearchOffsetByTimestamp
            | RequestCode::GetEarliestMessageStoreTime
            | RequestCode::LockBatchMq
            | RequestCode::UnlockBatchMq
            | RequestCode::UpdateAndCreateTopic
            | RequestCode::UpdateAndCreateTopicList
            | RequestCode::DeleteTopicInBroker
            | RequestCode::DeleteTopicInNamesrv
            | RequestCode::UpdateAndCreateSubscriptionGroup
            | RequestCode::UpdateAndCreateSubscriptionGroupList
            | RequestCode::DeleteSubscriptionGroup
            | RequestCode::InvokeBrokerToResetOffset
            | RequestCode::CloneGroupOffset
            | RequestCode::PopMessage
            | RequestCode::AckMessage
            | RequestCode::BatchAckMessage
            | RequestCode::ChangeMessageInvisibleTime
    )
}

/// Whether a node that knows less than the leader asks it; see `handlers/absent.rs`.
pub(crate) const fn may_need_leader(code: RequestCode) -> bool {
    matches!(
        code,
        RequestCode::GetRouteInfoByTopic
            | RequestCode::GetTopicConfig
            | RequestCode::GetSubscriptionGroupConfig
    )
}

/// Whether the answer depends on what is applied.
pub(crate) const fn asks_for_state(code: RequestCode) -> bool {
    needs_leader(code)
        || may_need_leader(code)
        || matches!(
            code,
            RequestCode::PullMessage | RequestCode::LitePullMessage | RequestCode::ViewMessageById
        )
}

/// Whether asking twice is as good as asking once: an answer that did not come is asked for again.
pub(super) const fn changes_nothing(code: RequestCode) -> bool {
    may_need_leader(code)
        || matches!(
            code,
            RequestCode::QueryConsumerOffset
                | RequestCode::GetMaxOffset
                | RequestCode::GetMinOffset
                | RequestCode::SearchOffsetByTimestamp
                | RequestCode::GetEarliestMessageStoreTime
                | RequestCode::PullMessage
                | RequestCode::LitePullMessage
                | RequestCode::ViewMessageById
        )
}
