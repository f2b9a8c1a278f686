//! Transactions: codes 37, 39 and 323.

use super::header;
use crate::Name;

header! {
    /// 37: how a transaction ended.
    EndTransactionHeader {
        /// The half message's topic.
        "topic" => topic: Option<Name>;
        /// The producer's group.
        "producerGroup" => producer_group: Name;
        /// The half message's queue offset.
        "tranStateTableOffset" => tran_state_table_offset: i64;
        /// The half message's position in the commit log.
        "commitLogOffset" => commit_log_offset: i64;
        /// 8 commit, 12 roll back, 0 unknown.
        "commitOrRollback" => commit_or_rollback: i32;
        /// Whether this answers a 39.
        "fromTransactionCheck" => from_transaction_check: bool = false;
        /// The message's UNIQ_KEY.
        "msgId" => msg_id: String;
        /// The transaction's id.
        "transactionId" => transaction_id: Option<String>;
    }
}

header! {
    /// 39, server to client, oneway: how did this transaction end?
    CheckTransactionStateHeader {
        /// The real topic.
        "topic" => topic: Option<Name>;
        /// The half message's queue offset.
        "tranStateTableOffset" => tran_state_table_offset: i64;
        /// Its position in the commit log.
        "commitLogOffset" => commit_log_offset: i64;
        /// Its UNIQ_KEY.
        "msgId" => msg_id: Option<String>;
        /// The transaction's id.
        "transactionId" => transaction_id: Option<String>;
        /// Its offset message id.
        "offsetMsgId" => offset_msg_id: Option<String>;
    }
}

header! {
    /// 323: asks anew about a transaction that was given up.
    ResumeCheckHalfMessageHeader {
        /// The topic of given up ones; stock tools leave it out.
        "topic" => topic: Option<Name>;
        /// The offset message id of the message there.
        "msgId" => msg_id: String;
    }
}
