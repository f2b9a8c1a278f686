//! One connection's life: one task reads and hands to the service (`reading.rs`), a second one writes.

use std::pin::pin;
use std::time::Duration;

use tokio::net::TcpStream;

use super::reading::read_frames;
use super::{Channel, CloseReason, NetConfig, Service};

/// How long what is still queued may take to leave once the connection ends.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the peer may take to close its side once ours is closed.
const LAST_READ_TIMEOUT: Duration = Duration::from_millis(500);

/// Serves one socket until it ends.
pub(super) async fn serve(socket: TcpStream, channel: Channel, config: &NetConfig, service: &dyn Service) {
    let _farewell = Farewell { channel: &channel, service };
    let (mut reader, writer) = socket.into_split();
    let (writing, write_timeout) = (channel.clone(), config.write_timeout);
    let mut writer = tokio::spawn(async move { writing.outgoing().write_all(writer, write_timeout).await });
    let mut reading = pin!(read_frames(&mut reader, &channel, config, service));
    let written = tokio::select! {
        reason = reading.as_mut() => { channel.close(reason); None }
        () = channel.closing() => None,
        written = &mut writer => Some(written),
    };
    match written {
        // Everything has left and our side is closed. What the peer has sent meanwhile is read, not left behind:
        // closing over it would reset the connection, and take answers along that the peer has not read yet.
        Some(Ok(Ok(()))) => {
            let last = tokio::time::timeout(LAST_READ_TIMEOUT, reading).await;
            channel.close(last.unwrap_or(CloseReason::Stopping));
        }
        Some(Ok(Err(reason))) => channel.close(reason),
        Some(Err(_)) => channel.close(CloseReason::Stopping),
        // What a client does not read is not waited for: it holds memory.
        None if !channel.reads() => writer.abort(),
        None if tokio::time::timeout(LAST_WRITE_TIMEOUT, &mut writer).await.is_err() => writer.abort(),
        None => {}
    }
}

/// Tells the service and the log, also when a handler panicked.
struct Farewell<'a> {
    channel: &'a Channel,
    service: &'a dyn Service,
}

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        match self.channel.take_reason() {
            Some(reason) => reason.tell(self.channel.remote()),
            None => {
                tracing::error!(remote = %self.channel.remote(), "connection closed: its handler failed");
            }
        }
        self.channel.close(CloseReason::Stopping);
        self.service.closed(self.channel);
    }
}
