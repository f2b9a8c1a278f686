//! FolioMQ's own list of popped messages that are in flight.
//!
//! Request code [`IN_FLIGHT_LIST`], no body; the header's fields [`CONSUMER_GROUP`], [`TOPIC`] and [`MAX`] may say of which consumer group, of
//! which topic, and how many batches at most. The answer's body is an [`InFlightList`] in JSON.

use std::sync::Arc;

pub use folio_broker::pop::{InFlightList, ListedBatch};

use super::answers::{json, wanted};
use crate::remoting::Remoting;
use crate::request::Request;

/// List of messages in flight.
pub const IN_FLIGHT_LIST: i32 = 90_006;
/// The header's field with the consumer group; default: all.
pub const CONSUMER_GROUP: &str = "consumerGroup";
/// The header's field with the topic; default: all.
pub const TOPIC: &str = "topic";
/// The header's field with how many batches are wanted at most; default: 100.
pub const MAX: &str = "max";
/// Batches of a list that does not say how many.
const DEFAULT_MAX: usize = 100;

/// 90,006: what is in flight.
pub(crate) fn list(remoting: &Arc<Remoting>, request: Request) {
    let field = |name| request.frame.ext.get(name).map(ToString::to_string);
    let (group, topic) = (field(CONSUMER_GROUP), field(TOPIC));
    let max = match wanted(&request.frame, MAX) {
        Ok(max) => max.unwrap_or(DEFAULT_MAX),
        Err(error) => return request.reply.fail(error),
    };
    let broker = remoting.broker.clone();
    tokio::spawn(async move {
        match broker.list_in_flight(group, topic, max).await {
            Ok(listed) => json(request, &listed),
            Err(error) => request.reply.fail(error),
        }
    });
}
