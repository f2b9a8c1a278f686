//! A channel as the broker knows a client's connection.

use std::net::SocketAddr;

use bytes::Bytes;
use folio_broker::connection::{Connection, Reader};
use folio_broker::reads::ReadTurn;
use folio_broker::transactions::TransactionCheck;
use folio_protocol::code::RequestCode;
use folio_protocol::frame::Frame;
use folio_protocol::header::{CheckTransactionStateHeader, NotifyConsumerIdsChangedHeader};

use super::Channel;

impl Connection for Channel {
    fn id(&self) -> u64 {
        Channel::id(self)
    }

    fn remote(&self) -> SocketAddr {
        Channel::remote(self)
    }

    fn is_open(&self) -> bool {
        Channel::is_open(self)
    }

    fn group_changed(&self, group: &str) {
        let header = NotifyConsumerIdsChangedHeader { consumer_group: group.into() };
        self.notify(Frame::request(RequestCode::NotifyConsumerIdsChanged, &header, Bytes::new()));
    }

    fn check_transaction(&self, check: &TransactionCheck) {
        let header = CheckTransactionStateHeader {
            topic: Some(check.topic.as_str().into()),
            tran_state_table_offset: check.queue_offset as i64,
            commit_log_offset: check.position as i64,
            msg_id: check.unique_key.clone(),
            transaction_id: check.unique_key.clone(),
            offset_msg_id: Some(check.offset_id.clone()),
        };
        self.notify(Frame::request(RequestCode::CheckTransactionState, &header, check.message.clone()));
    }
}

impl Reader for Channel {
    fn takes_requests(&self) -> bool {
        Channel::takes_requests(self)
    }

    fn try_read_turn(&self) -> Option<ReadTurn> {
        Channel::try_read_turn(self)
    }

    async fn read_turn(&self) -> Option<ReadTurn> {
        Channel::read_turn(self).await
    }

    fn is_behind(&self) -> bool {
        Channel::is_behind(self)
    }

    async fn catch_up(&self) {
        Channel::catch_up(self).await;
    }
}
