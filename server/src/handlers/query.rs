//! QUERY_MESSAGE (12): messages by key or unique key, see [`folio_broker::query`].

use std::sync::Arc;

use folio_broker::error::BrokerError;
use folio_broker::query::KeyQuestion;
use folio_protocol::code::ResponseCode;
use folio_protocol::header::{Header, QueryMessageHeader, QueryMessageResponseHeader};

use crate::forward;
use crate::remoting::Remoting;
use crate::request::Request;

/// Messages that are looked for by a unique key, whatever the request says: RocketMQ's `defaultQueryMaxNum`.
const UNIQUE_MAX: usize = 32;
/// What RocketMQ says to a client that finds nothing.
const NOT_FOUND: &str = "can not find message, maybe time range not correct";

/// 12: answers the messages back to back, the newest first.
pub(crate) fn query(remoting: &Arc<Remoting>, request: Request) {
    let question = match QueryMessageHeader::from_ext(&request.frame.ext) {
        Ok(header) => question(header),
        Err(error) => return request.reply.fail(error),
    };
    let remoting = remoting.clone();
    tokio::spawn(async move {
        // If the client is gone, none reads the answer.
        let Some(_turn) = request.read_turn().await else { return request.reply.done() };
        match remoting.broker.messages_with_key(question).await {
            Ok(found) => {
                let header = QueryMessageResponseHeader {
                    index_last_update_timestamp: found.indexed_ms,
                    index_last_update_phyoffset: i64::try_from(found.indexed_position).unwrap_or(i64::MAX),
                };
                if found.messages.is_empty() {
                    let code = ResponseCode::QueryNotFound;
                    return request.reply.answer(code, Some(NOT_FOUND.to_owned()), &header, "");
                }
                // What they hold of the memory of reads is given back when the answer is in its client's queue.
                request.reply.parts(ResponseCode::Success, &header, found.messages.clone());
            }
            Err(BrokerError::AskLeader) => forward::forward(&remoting, request),
            Err(error) => request.reply.fail(error),
        }
    });
}

fn question(header: QueryMessageHeader) -> KeyQuestion {
    KeyQuestion {
        topic: header.topic.to_string(),
        key: header.key,
        max: if header.unique_key_query { UNIQUE_MAX } else { usize::try_from(header.max_num).unwrap_or(0) },
        stored: header.begin_timestamp..=header.end_timestamp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unique_key_is_looked_for_whatever_number_is_asked_for() {
        let header = |max_num, unique_key_query| QueryMessageHeader {
            topic: "orders".into(),
            key: "k".into(),
            max_num,
            begin_timestamp: 1,
            end_timestamp: 2,
            unique_key_query,
        };
        assert_eq!(question(header(1, true)).max, 32);
        assert_eq!((question(header(7, false)).max, question(header(-1, false)).max), (7, 0));
        assert_eq!(question(header(1, false)).stored, 1..=2);
    }
}
