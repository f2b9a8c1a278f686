//! One connection's life: read, decode, hand to the service; a second task writes.

use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use folio_protocol::frame::Frame;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::{Channel, CloseReason, NetConfig, Service};

/// Room made when there is too little left: some dozens of small requests at once, and more while reads fill it.
const READ_BYTES: usize = 32 * 1024;
const READ_BYTES_MAX: usize = 256 * 1024;
/// Room below which there is too little.
const ROOM_BYTES_MIN: usize = 8 * 1024;
/// First byte of a TLS handshake record. As a frame's first byte it would mean 352 MiB or more.
const TLS_HANDSHAKE: u8 = 0x16;
/// How long what is still queued may take to leave once the connection ends.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the peer may take to close its side once ours is closed.
const LAST_READ_TIMEOUT: Duration = Duration::from_millis(500);

/// Serves one socket until it ends.
pub(super) async fn serve(socket: TcpStream, channel: Channel, config: &NetConfig, service: &dyn Service) {
    let _farewell = Farewell { channel: &channel, service };
    let (mut reader, writer) = socket.into_split();
    let writing = channel.clone();
    let mut writer = tokio::spawn(async move { writing.outgoing().write_all(writer).await });
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
        Some(Ok(Err(error))) => channel.close(CloseReason::Io(error)),
        Some(Err(_)) => channel.close(CloseReason::Stopping),
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
        let remote = self.channel.remote();
        match self.channel.take_reason() {
            Some(reason) if reason.is_ordinary() => tracing::debug!(%remote, "connection ended: {reason}"),
            Some(reason) => tracing::warn!(%remote, "connection closed: {reason}"),
            None => tracing::error!(%remote, "connection closed: its handler failed"),
        }
        self.channel.close(CloseReason::Stopping);
        self.service.closed(self.channel);
    }
}

async fn read_frames(
    reader: &mut (impl AsyncRead + Unpin),
    channel: &Channel,
    config: &NetConfig,
    service: &dyn Service,
) -> CloseReason {
    let (mut buffer, mut room) = (BytesMut::new(), READ_BYTES);
    let mut waiting = Waiting::since_now();
    let mut timer = pin!(sleep_until(waiting.deadline(config)));
    let mut first_read = true;
    loop {
        if buffer.capacity() - buffer.len() < ROOM_BYTES_MIN {
            buffer.reserve(room);
        }
        let read = tokio::select! {
            biased;
            read = reader.read_buf(&mut buffer) => read,
            () = timer.as_mut() => {
                // The timer is moved only here: once per period, not once per read.
                if waiting.deadline(config) <= Instant::now() {
                    return waiting.reason(config);
                }
                timer.as_mut().reset(waiting.deadline(config));
                continue;
            }
        };
        match read {
            Ok(0) if buffer.is_empty() => return CloseReason::PeerClosed,
            Ok(0) => return CloseReason::PeerClosedInFrame(buffer.len()),
            Ok(_) if buffer.len() == buffer.capacity() => room = READ_BYTES_MAX.min(2 * room),
            Ok(_) => room = READ_BYTES.max(room / 2),
            Err(error) => return CloseReason::Io(error),
        }
        if first_read && buffer.first() == Some(&TLS_HANDSHAKE) {
            return CloseReason::Tls;
        }
        first_read = false;
        let taken = match take_frames(&mut buffer, channel, service) {
            Ok(taken) => taken,
            Err(reason) => return reason,
        };
        if waiting.update(taken, !buffer.is_empty()) {
            timer.as_mut().reset(waiting.deadline(config));
        }
    }
}

/// Hands over every whole frame; says whether there was one.
fn take_frames(buffer: &mut BytesMut, channel: &Channel, service: &dyn Service) -> Result<bool, CloseReason> {
    let mut taken = false;
    loop {
        match Frame::decode(buffer) {
            Ok(Some(frame)) if frame.is_response() => channel.answered(frame),
            Ok(Some(frame)) => service.request(channel, frame),
            Ok(None) => return Ok(taken),
            Err(error) => return Err(CloseReason::BadFrame(error.to_string())),
        }
        taken = true;
    }
}

/// What the reader waits for, and since when.
struct Waiting {
    /// The last byte, or the first of the frame that is not complete yet.
    since: Instant,
    in_frame: bool,
}

impl Waiting {
    fn since_now() -> Self {
        Self { since: Instant::now(), in_frame: false }
    }

    /// After a read; says whether the deadline may have come closer. Bytes that complete no frame do
    /// not extend the time a frame has: one byte now and then keeps no connection alive.
    fn update(&mut self, frame_taken: bool, in_frame: bool) -> bool {
        let begins = in_frame && (frame_taken || !self.in_frame);
        if frame_taken || begins {
            self.since = Instant::now();
        }
        let closer = in_frame && !self.in_frame;
        self.in_frame = in_frame;
        closer
    }

    fn deadline(&self, config: &NetConfig) -> Instant {
        self.since + if self.in_frame { config.frame_timeout } else { config.idle_timeout }
    }

    fn reason(&self, config: &NetConfig) -> CloseReason {
        if self.in_frame {
            CloseReason::PartialFrame(config.frame_timeout)
        } else {
            CloseReason::Idle(config.idle_timeout)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[derive(Default)]
    struct Seen(Mutex<Vec<i32>>);

    impl Service for Seen {
        fn request(&self, _channel: &Channel, frame: Frame) {
            self.0.lock().push(frame.code);
        }
        fn closed(&self, _channel: &Channel) {}
    }

    fn config() -> NetConfig {
        NetConfig {
            frame_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
            ..NetConfig::default()
        }
    }

    async fn reason_after(
        bytes: &[u8],
        then: impl FnOnce(tokio::io::DuplexStream),
    ) -> (CloseReason, Vec<i32>) {
        let (mut client, mut server) = tokio::io::duplex(1 << 20);
        tokio::io::AsyncWriteExt::write_all(&mut client, bytes).await.unwrap();
        then(client);
        let seen = Seen::default();
        let reason = read_frames(&mut server, &Channel::unconnected(), &config(), &seen).await;
        (reason, seen.0.into_inner())
    }

    fn frames(codes: &[i32]) -> BytesMut {
        let mut out = BytesMut::new();
        for &code in codes {
            Frame { code, ..Frame::default() }.encode(&mut out).unwrap();
        }
        out
    }

    #[tokio::test]
    async fn every_frame_of_one_read_is_handed_over() {
        let (reason, seen) = reason_after(&frames(&[34, 105, 10]), drop).await;
        assert_eq!(seen, [34, 105, 10]);
        assert!(matches!(reason, CloseReason::PeerClosed), "{reason}");
    }

    #[tokio::test]
    async fn garbage_giant_lengths_and_tls_are_told_apart() {
        let (reason, _) = reason_after(b"GET / HTTP/1.1\r\n", |_| {}).await;
        assert!(matches!(reason, CloseReason::BadFrame(_)), "{reason}");
        let (reason, _) = reason_after(&[0xff; 8], |_| {}).await;
        assert!(matches!(reason, CloseReason::BadFrame(_)), "{reason}");
        let (reason, _) = reason_after(&[0x16, 0x03, 0x01, 0x02, 0x00], |_| {}).await;
        assert!(matches!(reason, CloseReason::Tls), "{reason}");
    }

    #[tokio::test]
    async fn a_frame_cut_by_the_peer_says_how_much_of_it_came() {
        let whole = frames(&[34]);
        let (reason, seen) = reason_after(&whole[..whole.len() - 1], drop).await;
        assert!(seen.is_empty());
        assert_eq!(
            reason.to_string(),
            format!("the peer closed it in the middle of a frame ({} bytes of it had come)", whole.len() - 1)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_frame_and_then_nothing_times_out_before_idleness_does() {
        let started = Instant::now();
        let (reason, _) = reason_after(&frames(&[34])[..9], std::mem::forget).await;
        assert!(matches!(reason, CloseReason::PartialFrame(_)), "{reason}");
        assert!(started.elapsed() < Duration::from_secs(11), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_closed_after_its_time() {
        let started = Instant::now();
        let (reason, seen) = reason_after(&frames(&[34]), std::mem::forget).await;
        assert_eq!(seen, [34]);
        assert!(matches!(reason, CloseReason::Idle(_)), "{reason}");
        assert!(started.elapsed() >= Duration::from_secs(120), "{:?}", started.elapsed());
    }
}
