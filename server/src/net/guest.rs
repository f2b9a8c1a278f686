//! A connection beyond a limit: it is told so by a response, and closed. An operator's requests are served.
//!
//! Without the response a client would take the node for dead and come again at once; with it, it says in its log what the
//! limit is.
//!
//! Whatever it sends, it is closed soon: places for guests are few, and response frames, which are no requests, would keep
//! one for ever.
//!
//! - `net.I10`: a guest is closed two seconds after it came, and a second more for what still leaves; an operator's once its
//!   requests are answered.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use folio_protocol::code::ResponseCode;
use folio_protocol::frame::Frame;
use tokio::time::sleep;

use super::connections::TooMany;
use super::{Channel, CloseReason, NetConfig, Service};

/// How long it may take to say its request.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long its last answers may take to leave.
const LAST_WRITE: Duration = Duration::from_secs(1);
/// How often an operator's is looked at whether its requests are answered.
const LOOK: Duration = Duration::from_millis(50);

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
            write_timeout: config.write_timeout.min(PATIENCE),
            ..config.clone()
        }
    }

    /// Closes the connection in time (net.I10). Runs beside it, and does not return.
    pub(super) async fn end_in_time(channel: &Channel) -> Infallible {
        sleep(PATIENCE).await;
        while channel.is_operator() && !channel.has_answered() {
            sleep(LOOK).await;
        }
        channel.drain_for(CloseReason::Refused);
        sleep(LAST_WRITE).await;
        channel.close(CloseReason::Refused);
        std::future::pending().await
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

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use tokio::io::AsyncWriteExt;
    use tokio::time::{Instant, timeout};

    use super::super::Resources;
    use super::super::reading::read_frames;
    use super::*;

    struct Nobody;

    impl Service for Nobody {
        fn request(&self, _channel: &Channel, _frame: Frame) {}
        fn closed(&self, _channel: &Channel) {}
    }

    fn guest(is_operator: bool) -> (Channel, NetConfig) {
        let config = Guest::limits(&NetConfig::with_memory(64 << 20));
        let remote = ([127, 0, 0, 1], 9).into();
        let resources = Resources::new(&config);
        (Channel::new(remote, is_operator, &config, resources.budget(), resources.clone()), config)
    }

    /// Each response frame counted as life, and reached no code that refuses.
    #[tokio::test(start_paused = true)]
    async fn i10_a_guest_that_sends_answers_is_closed_all_the_same() {
        let (channel, config) = guest(false);
        let (mut client, mut server) = tokio::io::duplex(1 << 20);
        let mut answer = BytesMut::new();
        Frame { flag: folio_protocol::frame::FLAG_RESPONSE, ..Frame::default() }
            .encode(&mut answer)
            .expect("a frame");
        let sending = async {
            loop {
                client.write_all(&answer).await.expect("it is read");
                sleep(Duration::from_millis(500)).await;
            }
        };
        let guest = Guest { service: Arc::new(Nobody), why: TooMany::Connections(1) };
        let started = Instant::now();
        let life = async {
            tokio::select! {
                reason = read_frames(&mut server, &channel, &config, &guest) => panic!("{reason}"),
                () = channel.closing() => {}
                never = Guest::end_in_time(&channel) => match never {},
                () = sending => {}
            }
        };
        timeout(Duration::from_secs(60), life).await.expect("it is closed");
        assert!(started.elapsed() <= PATIENCE + LAST_WRITE + LOOK, "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn i10_an_operators_guest_stays_until_its_request_is_answered() {
        let (channel, _) = guest(true);
        let asked = channel.expect_answer(&Frame::default());
        let mut ending = std::pin::pin!(Guest::end_in_time(&channel));
        assert!(timeout(Duration::from_secs(20), ending.as_mut()).await.is_err());
        assert!(channel.is_open());
        drop(asked);
        assert!(timeout(2 * LAST_WRITE, ending.as_mut()).await.is_err());
        assert!(!channel.is_open());
    }
}
