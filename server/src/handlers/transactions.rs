//! END_TRANSACTION (37) and RESUME_CHECK_HALF_MESSAGE (323), see [`folio_broker::transactions`]; and FolioMQ's own list.
//!
//! The list is request code [`TRANSACTION_LIST`], no body; the header's fields [`PRODUCER_GROUP`] and [`MAX`] may say of which producer group, and
//! how many at most. The answer's body is a list of [`ListedTransaction`] in JSON, the one that has been open for longest first.

use std::sync::Arc;

use folio_broker::error::BrokerError;
pub use folio_broker::transactions::ListedTransaction;
use folio_broker::transactions::{Resolution, ToEnd};
use folio_protocol::code::RequestCode;
use folio_protocol::flags::sys_flag;
use folio_protocol::header::{EndTransactionHeader, Header, ResumeCheckHalfMessageHeader};

use super::answers::{json, wanted};
use crate::remoting::Remoting;
use crate::request::Request;

/// List of open transactions.
pub const TRANSACTION_LIST: i32 = 90_005;
/// The header's field with the producer group; default: all.
pub const PRODUCER_GROUP: &str = "producerGroup";
/// The header's field with how many are wanted at most; default: 100.
pub const MAX: &str = "max";
/// Transactions of a list that does not say how many.
const DEFAULT_MAX: usize = 100;

/// 37: a producer says how its transaction ends. Mostly oneway; who waits is answered once it has ended.
pub(crate) fn end(remoting: &Arc<Remoting>, request: Request) {
    let wish = match wish(&request) {
        Ok(wish) => wish,
        Err(error) => return request.reply.fail(error),
    };
    let (broker, reply) = (remoting.broker.clone(), request.reply);
    tokio::spawn(async move {
        match broker.end_transaction(&wish).await {
            Ok(()) => reply.done(),
            Err(error) => {
                tracing::debug!(%error, ?wish, "a transaction was not ended");
                reply.fail(error);
            }
        }
    });
}

fn wish(request: &Request) -> Result<ToEnd, crate::error::ServerError> {
    let header = EndTransactionHeader::from_ext(&request.frame.ext)?;
    let resolution = match header.commit_or_rollback {
        sys_flag::TRANSACTION_COMMIT => Resolution::Commit,
        sys_flag::TRANSACTION_ROLLBACK => Resolution::RollBack,
        sys_flag::TRANSACTION_NONE => Resolution::Unknown,
        other => {
            let text =
                format!("commitOrRollback is {other}, expected 8 (commit), 12 (roll back) or 0 (unknown)");
            return Err(BrokerError::InvalidParameter(text).into());
        }
    };
    Ok(ToEnd {
        group: header.producer_group,
        position: header.commit_log_offset,
        queue_offset: header.tran_state_table_offset,
        resolution,
        is_answer: header.from_transaction_check,
    })
}

/// Notes that a client of this node ends a transaction: it is not asked about it any more, also where the leader that ends it is another node.
pub(crate) fn note(remoting: &Remoting, request: &Request) {
    if request.frame.request_code() == Some(RequestCode::EndTransaction)
        && !remoting.broker.leads()
        && let Ok(ToEnd { resolution: Resolution::Commit | Resolution::RollBack, position, .. }) =
            wish(request)
        && let Ok(id) = u64::try_from(position)
    {
        remoting.broker.note_end(id);
    }
}

/// 323: asks anew about a transaction that was given up.
pub(crate) fn resume(remoting: &Arc<Remoting>, request: Request) {
    let header = match ResumeCheckHalfMessageHeader::from_ext(&request.frame.ext) {
        Ok(header) => header,
        Err(error) => return request.reply.fail(error),
    };
    let (broker, reply) = (remoting.broker.clone(), request.reply);
    tokio::spawn(async move {
        match broker.resume_transaction(&header.msg_id).await {
            Ok(()) => reply.done(),
            Err(error) => reply.fail(error),
        }
    });
}

/// 90,005: which are open.
pub(crate) fn list(remoting: &Arc<Remoting>, request: Request) {
    let group = request.frame.ext.get(PRODUCER_GROUP).map(ToString::to_string);
    let max = match wanted(&request.frame, MAX) {
        Ok(max) => max.unwrap_or(DEFAULT_MAX),
        Err(error) => return request.reply.fail(error),
    };
    let broker = remoting.broker.clone();
    tokio::spawn(async move {
        match broker.list_transactions(group, max).await {
            Ok(open) => json(request, &open),
            Err(error) => request.reply.fail(error),
        }
    });
}
