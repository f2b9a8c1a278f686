//! What the server knows of each request: one exhaustive table, so that a new code does not compile before it is described.
//!
//! | column | meaning |
//! |---|---|
//! | [`Class`] | who may send it (`admin.I1`) |
//! | [`Place`] | which node may serve it, and whether a new leader waits until it has settled |
//! | repeatable | whether asking twice is as good as asking once: an answer that did not come is asked for again (`forward.I2`) |
//! | serve | its handler; none: it is answered with REQUEST_CODE_NOT_SUPPORTED and its name |

use std::sync::Arc;

use folio_protocol::code::RequestCode;

use self::Place::{Anywhere, Leader, LeaderIfAbsent, Settled};
use crate::handlers::in_flight::{self, IN_FLIGHT_LIST};
use crate::handlers::members::{self, ADD_NODE, REMOVE_NODE};
use crate::handlers::node_status::{self, NODE_STATUS};
use crate::handlers::timers::{self, TIMER_LIST};
use crate::handlers::transactions::{self, TRANSACTION_LIST};
use crate::handlers::{
    assignment, clients, configs, groups, locks, offsets, pop, pop_ends, pull, query, recall, route, send,
    send_back, statistics, topics, view,
};
use crate::remoting::Remoting;
use crate::request::Request;

/// Who may send a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Anybody: RocketMQ's clients send it by themselves, or their users do to send and to consume.
    Open,
    /// Operators: it changes or reveals the cluster.
    Admin,
}

/// Which node may serve a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Any node, whatever it has applied.
    Anywhere,
    /// Any node; the answer depends on what is applied, so a new leader settles first.
    Settled,
    /// Any node that knows what is asked for; one that does not asks the leader (`handlers/absent.rs`).
    LeaderIfAbsent,
    /// The leader, once it has settled: what proposes, and what must see every proposal before it.
    Leader,
}

type Handler = fn(&Arc<Remoting>, Request);

/// A request code's line in the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) class: Class,
    pub(crate) place: Place,
    pub(crate) is_repeatable: bool,
    pub(crate) serve: Option<Handler>,
}

impl Entry {
    const fn repeatable(self) -> Entry {
        Entry { is_repeatable: true, ..self }
    }
}

const fn open(place: Place, serve: Handler) -> Entry {
    Entry { class: Class::Open, place, is_repeatable: false, serve: Some(serve) }
}

const fn admin(place: Place, serve: Handler) -> Entry {
    Entry { class: Class::Admin, place, is_repeatable: false, serve: Some(serve) }
}

const fn unsupported(class: Class, place: Place) -> Entry {
    Entry { class, place, is_repeatable: false, serve: None }
}

/// FolioMQ's own requests, which RocketMQ has no codes for. One that is not here is not served.
const OWN: [(i32, &str, Entry); 6] = [
    (NODE_STATUS, "NODE_STATUS", admin(Anywhere, node_status::node_status)),
    (ADD_NODE, "ADD_NODE", admin(Anywhere, members::add_node)),
    (REMOVE_NODE, "REMOVE_NODE", admin(Anywhere, members::remove_node)),
    (TIMER_LIST, "TIMER_LIST", admin(Leader, timers::list).repeatable()),
    (TRANSACTION_LIST, "TRANSACTION_LIST", admin(Leader, transactions::list).repeatable()),
    (IN_FLIGHT_LIST, "IN_FLIGHT_LIST", admin(Leader, in_flight::list).repeatable()),
];

/// The line of a request code; none for a code that nobody knows.
pub(crate) fn entry(code: i32) -> Option<Entry> {
    match RequestCode::from_code(code) {
        Some(code) => Some(of_rocketmq(code)),
        None => OWN.iter().find(|own| own.0 == code).map(|own| own.2),
    }
}

/// A code with its name.
pub(crate) fn name_of(code: i32) -> String {
    let own = || OWN.iter().find(|own| own.0 == code).map(|own| own.1);
    match RequestCode::from_code(code).map(RequestCode::name).or_else(own) {
        Some(name) => format!("{name} ({code})"),
        None => code.to_string(),
    }
}

/// What clients send by themselves is open: to send, to pull and pop, to share queues, to keep offsets, to look messages
/// up, and to find topics. So is what creates topics and consumer groups, with the look at the cluster that tools take
/// first. What a server sends to clients is open, too, as nothing here serves it.
#[rustfmt::skip]
const fn of_rocketmq(code: RequestCode) -> Entry {
    use RequestCode as Code;
    match code {
        Code::HeartBeat => open(Anywhere, clients::heartbeat),
        Code::UnregisterClient => open(Anywhere, clients::unregister),
        Code::GetConsumerListByGroup => open(Anywhere, clients::consumer_list),
        Code::CheckClientConfig => open(Anywhere, clients::check_config),
        Code::GetRouteInfoByTopic => open(LeaderIfAbsent, route::route).repeatable(),
        Code::GetBrokerClusterInfo => open(Anywhere, route::cluster_info),
        Code::SendMessage => open(Leader, send::send),
        Code::SendMessageV2 => open(Leader, send::send),
        Code::SendBatchMessage => open(Leader, send::send),
        Code::RecallMessage => open(Leader, recall::recall),
        Code::EndTransaction => open(Leader, transactions::end).repeatable(),
        Code::ResumeCheckHalfMessage => admin(Leader, transactions::resume),
        Code::PullMessage => open(Settled, pull::pull).repeatable(),
        Code::LitePullMessage => open(Settled, pull::pull).repeatable(),
        Code::QueryConsumerOffset => open(Leader, offsets::query).repeatable(),
        Code::UpdateConsumerOffset => open(Leader, offsets::update),
        Code::SearchOffsetByTimestamp => open(Leader, offsets::search_by_time).repeatable(),
        Code::GetMaxOffset => open(Leader, offsets::max).repeatable(),
        Code::GetMinOffset => open(Leader, offsets::min).repeatable(),
        Code::GetEarliestMessageStoreTime => open(Leader, offsets::earliest_time).repeatable(),
        Code::PopMessage => open(Anywhere, pop::pop).repeatable(),
        Code::PeekMessage => open(Leader, pop::peek).repeatable(),
        Code::Notification => open(Anywhere, pop::notify).repeatable(),
        Code::PollingInfo => open(Anywhere, pop::polling_info).repeatable(),
        Code::AckMessage => open(Leader, pop_ends::ack).repeatable(),
        Code::BatchAckMessage => open(Leader, pop_ends::batch_ack).repeatable(),
        Code::ChangeMessageInvisibleTime => open(Leader, pop_ends::change_invisible).repeatable(),
        Code::QueryAssignment => open(Settled, assignment::query),
        Code::SetMessageRequestMode => admin(Leader, assignment::set_mode),
        Code::ConsumerSendMessageBack => open(Leader, send_back::send_back),
        Code::QueryMessage => open(Settled, query::query).repeatable(),
        Code::ViewMessageById => open(Settled, view::view).repeatable(),
        Code::LockBatchMq => open(Leader, locks::lock),
        Code::UnlockBatchMq => open(Leader, locks::unlock),
        Code::UpdateAndCreateTopic => open(Leader, topics::update),
        Code::UpdateAndCreateTopicList => open(Leader, topics::update_list),
        Code::DeleteTopicInBroker => admin(Leader, topics::delete),
        Code::DeleteTopicInNamesrv => admin(Leader, topics::delete_route),
        Code::GetAllTopicListFromNameserver => admin(Anywhere, topics::list),
        Code::UpdateAndCreateSubscriptionGroup => open(Leader, groups::update),
        Code::UpdateAndCreateSubscriptionGroupList => open(Leader, groups::update_list),
        Code::DeleteSubscriptionGroup => admin(Leader, groups::delete),
        Code::GetTimerMetrics => admin(Leader, timers::metrics).repeatable(),
        Code::GetAllTopicConfig => admin(Anywhere, configs::all_topics),
        Code::GetTopicConfig => admin(LeaderIfAbsent, configs::one_topic).repeatable(),
        Code::GetAllSubscriptionGroupConfig => admin(Anywhere, configs::all_groups),
        Code::GetSubscriptionGroupConfig => admin(LeaderIfAbsent, configs::one_group).repeatable(),
        Code::GetTopicStatsInfo => admin(Leader, statistics::topic).repeatable(),
        Code::GetConsumeStats => admin(Leader, statistics::group).repeatable(),
        Code::GetConsumerConnectionList => admin(Anywhere, statistics::consumers).repeatable(),
        Code::GetProducerConnectionList => admin(Anywhere, statistics::producers).repeatable(),
        Code::QueryTopicConsumeByWho => admin(Settled, statistics::groups_of_topic).repeatable(),
        Code::QueryTopicsByConsumer => admin(Settled, statistics::topics_of_group).repeatable(),
        Code::QuerySubscriptionByConsumer => admin(Anywhere, statistics::subscription).repeatable(),

        // Known by name and not served. What will be the leader's is brought there: it may run a build that serves it.
        Code::SendReplyMessage | Code::SendReplyMessageV2
        => unsupported(Class::Open, Leader),
        Code::InvokeBrokerToResetOffset | Code::CloneGroupOffset
        => unsupported(Class::Admin, Leader),

        // What else clients send, and what a server sends to clients.
        Code::CheckTransactionState | Code::NotifyConsumerIdsChanged
        | Code::RegisterMessageFilterClass | Code::PushReplyMessageToClient
        => unsupported(Class::Open, Anywhere),

        // Topics, groups, offsets and consumers.
        Code::RegisterTopicInNamesrv | Code::UpdateAndCreateStaticTopic | Code::UpdateAndGetGroupForbidden
        | Code::SuspendConsumer | Code::ResumeConsumer | Code::AdjustConsumerThreadPool
        | Code::ResetConsumerOffsetInConsumer | Code::ResetConsumerOffsetInBroker
        | Code::ResetConsumerClientOffset
        | Code::ConsumeMessageDirectly
        | Code::PopRollback
        // What there is, and who uses it.
        | Code::GetTopicNameList | Code::GetTopicConfigList | Code::GetTopicsByCluster
        | Code::GetSystemTopicListFromNs | Code::GetSystemTopicListFromBroker | Code::GetUnitTopicList
        | Code::GetHasUnitSubTopicList | Code::GetHasUnitSubUnunitTopicList | Code::GetAllProducerInfo
        | Code::GetBrokerConsumeStats | Code::WhoConsumeTheMessage | Code::QueryConsumeTimeSpan | Code::QueryCorrectionOffset | Code::QueryConsumeQueue
        | Code::QueryBrokerOffset | Code::GetConsumerRunningInfo | Code::GetConsumerStatusFromClient
        | Code::InvokeBrokerToGetConsumerStatus | Code::GetClientConfig | Code::GetAllMessageRequestMode
        | Code::GetAllConsumerOffset | Code::GetAllDelayOffset | Code::GetTimerCheckPoint
        | Code::QueryDataVersion
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
        => unsupported(Class::Admin, Anywhere),
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
            let open = entry(code.code()).is_some_and(|entry| entry.class == Class::Open);
            assert_eq!(open, OF_CLIENTS.contains(&code.code()), "{} {code}", code.code());
        }
        assert!(OF_CLIENTS.iter().all(|code| RequestCode::from_code(*code).is_some()));
    }

    /// `forward.I2`: these change nothing, by number, or are done once: the end of a transaction (37), an acknowledgement (200051, 200151), another
    /// invisible time (200053). What a pop (200050) has given whose answer was lost comes again, as where its client repeats it. A send
    /// among them would be stored twice.
    /// (A commit may be asked for twice by its turn.)
    #[test]
    fn only_questions_are_asked_again() {
        let codes = RequestCode::ALL.iter().map(|code| code.code());
        let repeatable: Vec<i32> =
            codes.filter(|code| entry(*code).is_some_and(|entry| entry.is_repeatable)).collect();
        assert_eq!(
            repeatable,
            [
                11, 12, 14, 29, 30, 31, 32, 33, 37, 61, 105, 202, 203, 204, 208, 300, 343, 345, 351, 352,
                361, 200_050, 200_051, 200_052, 200_053, 200_054, 200_055, 200_151
            ]
        );
    }

    #[test]
    fn admin_i1_own_codes_have_a_class_and_foreign_ones_none() {
        for (code, _, own) in OWN {
            assert_eq!(RequestCode::from_code(code), None, "{code} would never be looked for here");
            assert_eq!(own.class, Class::Admin, "{code}");
            assert!(entry(code).is_some_and(|entry| entry.serve.is_some()), "{code}");
        }
        assert!(entry(7_777).is_none());
        assert_eq!(name_of(ADD_NODE), "ADD_NODE (90002)");
        assert_eq!(name_of(215), "DELETE_TOPIC_IN_BROKER (215)");
    }
}
