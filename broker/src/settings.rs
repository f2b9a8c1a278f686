//! What an operator may set of the broker's behaviour, by RocketMQ's names and defaults.

use folio_protocol::flags::PermissionBits;
use folio_protocol::limits::BODY_BYTES_MAX;

use crate::cold_reads::ColdReadsConfig;
use crate::delays::DelayLevels;
use crate::transactions::TransactionSettings;

/// The region of a broker that is told none.
const DEFAULT_REGION: &str = "DefaultRegion";

/// RocketMQ's longest delay: three days.
pub const TIMER_DELAY_MAX_S: u64 = 3 * 24 * 3_600;

/// The broker's settings; fixed while the node runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `autoCreateTopicEnable`: whether a send to an unknown topic creates it from its template.
    pub auto_create_topic: bool,
    /// `brokerPermission`: whether this broker takes and gives messages at all.
    pub permission: PermissionBits,
    /// `maxMessageSize`: the longest body, bytes.
    pub body_bytes_max: usize,
    /// `messageDelayLevel`: how long messages of each delay level wait.
    pub delay_levels: DelayLevels,
    /// `timerMaxDelaySec`: how long a message may be delayed, seconds.
    pub timer_delay_max_s: u64,
    /// When producers are asked about their transactions.
    pub transactions: TransactionSettings,
    /// `enableRetryTopicV2`: whether popped messages come again in `%RETRY%group+topic`, not `%RETRY%group_topic`.
    pub pop_retry_v2: bool,
    /// `enableTopicMessageTypeCheck`: whether a send of another kind than its topic's `message.type` is refused.
    pub checks_message_type: bool,
    /// `regionId`, told to clients and stored with messages.
    pub region: String,
    /// `traceOn`, told to clients and stored with messages.
    pub trace_on: bool,
    /// Pulls that may wait for a message at a time; one that keeps much counts more than once, and one connection has a
    /// quarter of it. RocketMQ has no limit here.
    pub polls_max: usize,
    /// What counts as an old message, and how fast they are read while clients write; none of RocketMQ's.
    pub cold_reads: ColdReadsConfig,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            auto_create_topic: true,
            permission: PermissionBits::READ_WRITE,
            body_bytes_max: BODY_BYTES_MAX,
            delay_levels: DelayLevels::default(),
            timer_delay_max_s: TIMER_DELAY_MAX_S,
            transactions: TransactionSettings::default(),
            pop_retry_v2: false,
            checks_message_type: false,
            region: DEFAULT_REGION.to_owned(),
            trace_on: true,
            // Each has 1 to 2 KiB: at most a fifth of a machine of 512 MB.
            polls_max: 50_000,
            cold_reads: ColdReadsConfig::default(),
        }
    }
}
