//! Which handler serves which request: one exhaustive match, so that a new code needs a decision.
//!
//! NameServer ports and broker ports share it: a client may ask any port of any node anything; what is administrative only an
//! operator may ask (`admin.I1`).

use std::sync::Arc;
use std::time::Duration;

use folio_protocol::code::{RequestCode, ResponseCode};
use folio_raft::proposal::ProposeError;

use crate::admin;
use crate::broker::Broker;
use crate::forward;
use crate::handlers::{
    clients, configs, groups, locks, members, node_status, offsets, pull, route, send, send_back, topics,
    view,
};
use crate::request::Request;

/// How long a request waits for a new leader to apply what its predecessors acknowledged.
const SETTLE_PATIENCE: Duration = Duration::from_secs(3);

/// Serves a request here, or brings it to the leader if only the leader may serve it.
pub(crate) fn dispatch(broker: &Arc<Broker>, request: Request) {
    // admin.I1: before it is served or forwarded, and once more where it was forwarded to.
    if admin::is_refused(&request) {
        return admin::refuse(broker, request);
    }
    match request.frame.request_code() {
        Some(code) if forward::needs_leader(code) && !broker.leads() => forward::forward(broker, request),
        Some(code) if forward::needs_leader(code) || forward::may_need_leader(code) => {
            serve(broker, code, forward::armed(broker, request))
        }
        Some(code) => serve(broker, code, request),
        None => own(broker, request),
    }
}

/// FolioMQ's own requests; RocketMQ has no such codes. One without a class in `admin/class.rs` is not served.
fn own(broker: &Arc<Broker>, request: Request) {
    match request.frame.code {
        code if admin::class_of(code).is_none() => unsupported(request),
        node_status::NODE_STATUS => node_status::node_status(broker, request),
        members::ADD_NODE => members::add_node(broker, request),
        members::REMOVE_NODE => members::remove_node(broker, request),
        _ => unsupported(request),
    }
}

/// Serves a request on this node, whoever leads.
pub(crate) fn route(broker: &Arc<Broker>, request: Request) {
    match request.frame.request_code() {
        Some(code) => serve(broker, code, request),
        None => unsupported(request),
    }
}

/// A new leader is asked for what its predecessors acknowledged before it has applied it: it would deny what exists, and
/// tell old offsets (absent.I1).
fn serve(broker: &Arc<Broker>, code: RequestCode, request: Request) {
    if !broker.group.is_settling() || !forward::asks_for_state(code) {
        return route_code(broker, code, request);
    }
    let broker = broker.clone();
    drop(tokio::spawn(async move {
        let settled = broker.group.settle(SETTLE_PATIENCE).await;
        if settled && (broker.leads() || !forward::needs_leader(code)) {
            route_code(&broker, code, request);
        } else {
            request.reply.refuse(ProposeError::NotLeader { leader: None });
        }
    }));
}

#[rustfmt::skip]
fn route_code(broker: &Arc<Broker>, code: RequestCode, request: Request) {
    use RequestCode as Code;
    match code {
        Code::HeartBeat => clients::heartbeat(broker, request),
        Code::UnregisterClient => clients::unregister(broker, request),
        Code::GetConsumerListByGroup => clients::consumer_list(broker, request),
        Code::CheckClientConfig => clients::check_config(broker, request),
        Code::GetRouteInfoByTopic => route::route(broker, request),
        Code::GetBrokerClusterInfo => route::cluster_info(broker, request),
        Code::SendMessage | Code::SendMessageV2 | Code::SendBatchMessage => send::send(broker, request),
        Code::PullMessage | Code::LitePullMessage => pull::pull(broker, request),
        Code::QueryConsumerOffset => offsets::query(broker, request),
        Code::UpdateConsumerOffset => offsets::update(broker, request),
        Code::SearchOffsetByTimestamp => offsets::search_by_time(broker, request),
        Code::GetMaxOffset => offsets::max(broker, request),
        Code::GetMinOffset => offsets::min(broker, request),
        Code::GetEarliestMessageStoreTime => offsets::earliest_time(broker, request),
        Code::ConsumerSendMessageBack => send_back::send_back(broker, request),
        Code::ViewMessageById => view::view(broker, request),
        Code::LockBatchMq => locks::lock(broker, request),
        Code::UnlockBatchMq => locks::unlock(broker, request),
        Code::UpdateAndCreateTopic => topics::update(broker, request),
        Code::UpdateAndCreateTopicList => topics::update_list(broker, request),
        Code::DeleteTopicInBroker => topics::delete(broker, request),
        Code::DeleteTopicInNamesrv => topics::delete_route(broker, request),
        Code::GetAllTopicListFromNameserver => topics::list(broker, request),
        Code::UpdateAndCreateSubscriptionGroup => groups::update(broker, request),
        Code::UpdateAndCreateSubscriptionGroupList => groups::update_list(broker, request),
        Code::DeleteSubscriptionGroup => groups::delete(broker, request),
        Code::GetAllTopicConfig => configs::all_topics(broker, request),
        Code::GetTopicConfig => configs::one_topic(broker, request),
        Code::GetAllSubscriptionGroupConfig => configs::all_groups(broker, request),
        Code::GetSubscriptionGroupConfig => configs::one_group(broker, request),

        // Known by name and not served.
        Code::QueryMessage | Code::QueryBrokerOffset | Code::GetTopicConfigList | Code::GetTopicNameList
        | Code::UpdateBrokerConfig | Code::GetBrokerConfig | Code::TriggerDeleteFiles
        | Code::GetBrokerRuntimeInfo | Code::EndTransaction | Code::CheckTransactionState
        | Code::NotifyConsumerIdsChanged | Code::GetAllConsumerOffset | Code::GetAllDelayOffset
        | Code::GetClientConfig | Code::UpdateAndCreateAclConfig | Code::DeleteAclConfig
        | Code::GetBrokerClusterAclInfo | Code::UpdateGlobalWhiteAddrsConfig
        | Code::GetBrokerClusterAclConfig | Code::GetTimerCheckPoint | Code::GetTimerMetrics
        | Code::PutKvConfig | Code::GetKvConfig | Code::DeleteKvConfig | Code::RegisterBroker
        | Code::UnregisterBroker | Code::GetTopicStatsInfo | Code::GetConsumerConnectionList
        | Code::GetProducerConnectionList | Code::WipeWritePermOfBroker | Code::GetConsumeStats
        | Code::SuspendConsumer | Code::ResumeConsumer | Code::ResetConsumerOffsetInConsumer
        | Code::ResetConsumerOffsetInBroker | Code::AdjustConsumerThreadPool
        | Code::WhoConsumeTheMessage | Code::RegisterTopicInNamesrv | Code::GetKvListByNamespace
        | Code::ResetConsumerClientOffset | Code::GetConsumerStatusFromClient
        | Code::InvokeBrokerToResetOffset | Code::InvokeBrokerToGetConsumerStatus
        | Code::GetTopicsByCluster | Code::QueryTopicConsumeByWho | Code::RegisterFilterServer
        | Code::RegisterMessageFilterClass | Code::QueryConsumeTimeSpan | Code::GetSystemTopicListFromNs
        | Code::GetSystemTopicListFromBroker | Code::CleanExpiredConsumeQueue
        | Code::GetConsumerRunningInfo | Code::QueryCorrectionOffset | Code::ConsumeMessageDirectly
        | Code::GetUnitTopicList | Code::GetHasUnitSubTopicList | Code::GetHasUnitSubUnunitTopicList
        | Code::CloneGroupOffset | Code::ViewBrokerStatsData | Code::CleanUnusedTopic
        | Code::GetBrokerConsumeStats | Code::UpdateNamesrvConfig | Code::GetNamesrvConfig
        | Code::QueryConsumeQueue | Code::QueryDataVersion | Code::ResumeCheckHalfMessage
        | Code::SendReplyMessage | Code::SendReplyMessageV2 | Code::PushReplyMessageToClient
        | Code::AddWritePermOfBroker | Code::GetAllProducerInfo | Code::DeleteExpiredCommitLog
        | Code::QueryTopicsByConsumer | Code::QuerySubscriptionByConsumer
        | Code::UpdateAndGetGroupForbidden | Code::CheckRocksdbCqWriteProgress
        | Code::ExportRocksdbConfigToJson | Code::RecallMessage | Code::QueryAssignment
        | Code::SetMessageRequestMode | Code::GetAllMessageRequestMode
        | Code::UpdateAndCreateStaticTopic | Code::GetBrokerMemberGroup | Code::AddBroker
        | Code::RemoveBroker | Code::BrokerHeartbeat | Code::NotifyMinBrokerIdChange
        | Code::ExchangeBrokerHaInfo | Code::GetBrokerHaStatus | Code::ResetMasterFlushOffset
        | Code::ControllerAlterSyncStateSet | Code::ControllerElectMaster
        | Code::ControllerRegisterBroker | Code::ControllerGetReplicaInfo
        | Code::ControllerGetMetadataInfo | Code::ControllerGetSyncStateData | Code::GetBrokerEpochCache
        | Code::NotifyBrokerRoleChanged | Code::UpdateControllerConfig | Code::GetControllerConfig
        | Code::CleanBrokerData | Code::ControllerGetNextBrokerId | Code::ControllerApplyBrokerId
        | Code::UpdateColdDataFlowCtrConfig | Code::RemoveColdDataFlowCtrConfig
        | Code::GetColdDataFlowCtrInfo | Code::SetCommitLogReadMode | Code::AuthCreateUser
        | Code::AuthUpdateUser | Code::AuthDeleteUser | Code::AuthGetUser | Code::AuthListUser
        | Code::AuthCreateAcl | Code::AuthUpdateAcl | Code::AuthDeleteAcl | Code::AuthGetAcl
        | Code::AuthListAcl | Code::PopMessage | Code::AckMessage | Code::PeekMessage
        | Code::ChangeMessageInvisibleTime | Code::Notification | Code::PollingInfo | Code::PopRollback
        | Code::BatchAckMessage
        => unsupported(request),
    }
}

fn unsupported(request: Request) {
    let code = request.frame.code;
    let name = request.frame.request_code().map_or(String::new(), |code| format!(" ({code})"));
    request
        .reply
        .error(ResponseCode::RequestCodeNotSupported, format!(" request type {code}{name} not supported"));
}
