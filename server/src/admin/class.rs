//! Which requests are administrative: one exhaustive match, so that a new code needs a decision.

use folio_protocol::code::RequestCode;

use crate::handlers::members::{ADD_NODE, REMOVE_NODE};
use crate::handlers::node_status::NODE_STATUS;

/// Who may send a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Anybody: RocketMQ's clients send it by themselves, or their users do to send and to consume.
    Open,
    /// Operators: it changes or reveals the cluster.
    Admin,
}

/// FolioMQ's own requests, which RocketMQ has no codes for. One that is not here is not served.
const OWN: [(i32, Class, &str); 3] = [
    (NODE_STATUS, Class::Admin, "NODE_STATUS"),
    (ADD_NODE, Class::Admin, "ADD_NODE"),
    (REMOVE_NODE, Class::Admin, "REMOVE_NODE"),
];

/// The class of a request code; none for a code that nobody knows.
pub(crate) fn class_of(code: i32) -> Option<Class> {
    match RequestCode::from_code(code) {
        Some(code) => Some(class(code)),
        None => OWN.iter().find(|own| own.0 == code).map(|own| own.1),
    }
}

/// A code with its name.
pub(super) fn name_of(code: i32) -> String {
    let own = || OWN.iter().find(|own| own.0 == code).map(|own| own.2);
    match RequestCode::from_code(code).map(RequestCode::name).or_else(own) {
        Some(name) => format!("{name} ({code})"),
        None => code.to_string(),
    }
}

/// What clients send by themselves is open: to send, to pull and pop, to share queues, to keep offsets, to look messages
/// up, and to find topics. So is what creates topics and consumer groups, with the look at the cluster that tools take
/// first. What a server sends to clients is open, too, as nothing here serves it.
#[rustfmt::skip]
const fn class(code: RequestCode) -> Class {
    use RequestCode as Code;
    match code {
        Code::SendMessage | Code::SendMessageV2 | Code::SendBatchMessage | Code::SendReplyMessage
        | Code::SendReplyMessageV2 | Code::ConsumerSendMessageBack | Code::EndTransaction | Code::RecallMessage
        | Code::PullMessage | Code::LitePullMessage | Code::PopMessage | Code::AckMessage
        | Code::BatchAckMessage | Code::PeekMessage | Code::ChangeMessageInvisibleTime | Code::Notification
        | Code::PollingInfo | Code::HeartBeat | Code::UnregisterClient | Code::CheckClientConfig
        | Code::GetConsumerListByGroup | Code::LockBatchMq | Code::UnlockBatchMq | Code::QueryAssignment
        | Code::RegisterMessageFilterClass | Code::QueryConsumerOffset | Code::UpdateConsumerOffset
        | Code::SearchOffsetByTimestamp | Code::GetMaxOffset | Code::GetMinOffset
        | Code::GetEarliestMessageStoreTime | Code::QueryMessage | Code::ViewMessageById
        | Code::GetRouteInfoByTopic | Code::GetBrokerClusterInfo | Code::UpdateAndCreateTopic
        | Code::UpdateAndCreateTopicList | Code::UpdateAndCreateSubscriptionGroup
        | Code::UpdateAndCreateSubscriptionGroupList
        // From a server to clients.
        | Code::CheckTransactionState | Code::NotifyConsumerIdsChanged | Code::PushReplyMessageToClient
        => Class::Open,

        // Topics, groups, offsets and consumers.
        Code::DeleteTopicInBroker | Code::DeleteTopicInNamesrv | Code::RegisterTopicInNamesrv
        | Code::UpdateAndCreateStaticTopic | Code::DeleteSubscriptionGroup | Code::UpdateAndGetGroupForbidden
        | Code::SuspendConsumer | Code::ResumeConsumer | Code::AdjustConsumerThreadPool
        | Code::ResetConsumerOffsetInConsumer | Code::ResetConsumerOffsetInBroker
        | Code::ResetConsumerClientOffset | Code::InvokeBrokerToResetOffset | Code::CloneGroupOffset
        | Code::ConsumeMessageDirectly | Code::ResumeCheckHalfMessage | Code::SetMessageRequestMode
        | Code::PopRollback
        // What there is, and who uses it.
        | Code::GetAllTopicListFromNameserver | Code::GetTopicNameList | Code::GetTopicConfigList
        | Code::GetAllTopicConfig | Code::GetTopicConfig | Code::GetTopicsByCluster
        | Code::GetSystemTopicListFromNs | Code::GetSystemTopicListFromBroker | Code::GetUnitTopicList
        | Code::GetHasUnitSubTopicList | Code::GetHasUnitSubUnunitTopicList
        | Code::GetAllSubscriptionGroupConfig | Code::GetSubscriptionGroupConfig | Code::GetTopicStatsInfo
        | Code::GetConsumerConnectionList | Code::GetProducerConnectionList | Code::GetAllProducerInfo
        | Code::GetConsumeStats | Code::GetBrokerConsumeStats | Code::WhoConsumeTheMessage
        | Code::QueryTopicConsumeByWho | Code::QueryTopicsByConsumer | Code::QuerySubscriptionByConsumer
        | Code::QueryConsumeTimeSpan | Code::QueryCorrectionOffset | Code::QueryConsumeQueue
        | Code::QueryBrokerOffset | Code::GetConsumerRunningInfo | Code::GetConsumerStatusFromClient
        | Code::InvokeBrokerToGetConsumerStatus | Code::GetClientConfig | Code::GetAllMessageRequestMode
        | Code::GetAllConsumerOffset | Code::GetAllDelayOffset | Code::GetTimerCheckPoint
        | Code::GetTimerMetrics | Code::QueryDataVersion
        // The broker and its files.
        | Code::UpdateBrokerConfig | Code::GetBrokerConfig | Code::GetBrokerRuntimeInfo
        | Code::ViewBrokerStatsData | Code::TriggerDeleteFiles | Code::CleanExpiredConsumeQueue
        | Code::CleanUnusedTopic | Code::DeleteExpiredCommitLog | Code::CheckRocksdbCqWriteProgress
        | Code::ExportRocksdbConfigToJson | Code::UpdateColdDataFlowCtrConfig
        | Code::RemoveColdDataFlowCtrConfig | Code::GetColdDataFlowCtrInfo | Code::SetCommitLogReadMode
        | Code::WipeWritePermOfBroker | Code::AddWritePermOfBroker
        // NameServer, membership and replication.
        | Code::PutKvConfig | Code::GetKvConfig | Code::DeleteKvConfig | Code::GetKvListByNamespace
        | Code::UpdateNamesrvConfig | Code::GetNamesrvConfig | Code::RegisterBroker | Code::UnregisterBroker
        | Code::RegisterFilterServer | Code::GetBrokerMemberGroup | Code::AddBroker | Code::RemoveBroker
        | Code::BrokerHeartbeat | Code::NotifyMinBrokerIdChange | Code::ExchangeBrokerHaInfo
        | Code::GetBrokerHaStatus | Code::ResetMasterFlushOffset | Code::ControllerAlterSyncStateSet
        | Code::ControllerElectMaster | Code::ControllerRegisterBroker | Code::ControllerGetReplicaInfo
        | Code::ControllerGetMetadataInfo | Code::ControllerGetSyncStateData | Code::GetBrokerEpochCache
        | Code::NotifyBrokerRoleChanged | Code::UpdateControllerConfig | Code::GetControllerConfig
        | Code::CleanBrokerData | Code::ControllerGetNextBrokerId | Code::ControllerApplyBrokerId
        // Access control.
        | Code::UpdateAndCreateAclConfig | Code::DeleteAclConfig | Code::GetBrokerClusterAclInfo
        | Code::UpdateGlobalWhiteAddrsConfig | Code::GetBrokerClusterAclConfig | Code::AuthCreateUser
        | Code::AuthUpdateUser | Code::AuthDeleteUser | Code::AuthGetUser | Code::AuthListUser
        | Code::AuthCreateAcl | Code::AuthUpdateAcl | Code::AuthDeleteAcl | Code::AuthGetAcl
        | Code::AuthListAcl
        => Class::Admin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the Java, Go and C++ clients send without being asked by an operator, by number: a client that is refused one of
    /// them does not work.
    const OF_CLIENTS: [i32; 42] = [
        10, 11, 12, 14, 15, 17, 18, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 46, 105, 106,
        200, 225, 302, 310, 320, 324, 325, 326, 361, 370, 400, 200_050, 200_051, 200_052, 200_053, 200_054,
        200_055, 200_151,
    ];

    #[test]
    fn admin_i1_every_code_that_clients_do_not_send_by_themselves_is_administrative() {
        for code in RequestCode::ALL {
            let open = class_of(code.code()) == Some(Class::Open);
            assert_eq!(open, OF_CLIENTS.contains(&code.code()), "{} {code}", code.code());
        }
        assert!(OF_CLIENTS.iter().all(|code| RequestCode::from_code(*code).is_some()));
    }

    #[test]
    fn admin_i1_own_codes_have_a_class_and_foreign_ones_none() {
        for (code, class, _) in OWN {
            assert_eq!(RequestCode::from_code(code), None, "{code} would never be looked for here");
            assert_eq!((class_of(code), class), (Some(Class::Admin), Class::Admin), "{code}");
        }
        assert_eq!(class_of(7_777), None);
        assert_eq!(name_of(ADD_NODE), "ADD_NODE (90002)");
        assert_eq!(name_of(215), "DELETE_TOPIC_IN_BROKER (215)");
    }
}
