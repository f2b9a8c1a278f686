//! A connection beyond a limit: it is told so by a response, and closed. An operator's requests are served.
//!
//! Without the response a client would take the node for dead and come again at once; with it, it says in its log what the
//! limit is.

use std::sync::Arc;
use std::time::Duration;

use folio_protocol::code::ResponseCode;
use folio_protocol::frame::Frame;

use super::connections::TooMany;
use super::{Channel, CloseReason, NetConfig, Service};

/// How long it may take to say its request.
const PATIENCE: Duration = Duration::from_secs(2);

/// Serves a connection that is one too many.
pub(super) struct Guest {
    pub(super) service: Arc<dyn Service>,
    pub(super) why: TooMany,
}

impl Guest {
    /// The limits of such a connection.
    pub(super) fn limits(config: &NetConfig) -> NetConfig {
        NetConfig {
            idle_timeout: config.idle_timeout.min(PATIENCE),
            frame_timeout: config.frame_timeout.min(PATIENCE),
            ..config.clone()
        }
    }
}

impl Service for Guest {
    fn request(&self, channel: &Channel, frame: Frame) {
        if channel.is_operator() && self.service.is_operators(&frame) {
            return self.service.request(channel, frame);
        }
        if !frame.is_oneway() {
            let remark = format!("connection refused: {}", self.why);
            // A remark of one line fits.
            drop(channel.push(&frame.response_to(ResponseCode::SystemBusy).with_remark(remark)));
        }
        channel.drain_for(CloseReason::Refused);
    }

    fn closed(&self, channel: &Channel) {
        self.service.closed(channel);
    }
}
