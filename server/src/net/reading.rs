//! What one connection sends: read, cut into frames, handed to the service.
//!
//! Not here: the buffer ([`ReadBuffer`]), how much a connection may have in flight ([`Channel::may_read`]).

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use folio_protocol::frame::Frame;
use tokio::time::{Instant, sleep_until, timeout};

use super::config::after;
use super::read_buffer::{Read, ReadBuffer, Source};
use super::{Channel, CloseReason, NetConfig, Service};

/// First byte of a TLS handshake record. As a frame's first byte it would mean 352 MiB or more.
const TLS_HANDSHAKE: u8 = 0x16;
/// Frames that are served in one go; then other connections have a turn.
const FRAMES_AT_ONCE: usize = 256;
/// How often a connection that holds memory is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Reads until the connection ends.
pub(super) async fn read_frames(
    source: &mut impl Source,
    channel: &Channel,
    config: &NetConfig,
    service: &dyn Service,
) -> CloseReason {
    let mut reading = Reading {
        channel,
        config,
        service,
        buffer: ReadBuffer::new(channel.budget()),
        waiting: Waiting::since_now(),
        looks: false,
        received: 0,
    };
    match reading.run(source).await {
        Ok(never) => match never {},
        Err(reason) => reason,
    }
}

struct Reading<'a> {
    channel: &'a Channel,
    config: &'a NetConfig,
    service: &'a dyn Service,
    buffer: ReadBuffer,
    waiting: Waiting,
    /// The buffer may hold memory: the connection is looked at often.
    looks: bool,
    /// Bytes since the last look; all, if it could not read for a part of the time.
    received: usize,
}

impl Reading<'_> {
    async fn run(&mut self, source: &mut impl Source) -> Result<Infallible, CloseReason> {
        let mut timer = pin!(sleep_until(self.next_look()));
        let mut first_read = true;
        loop {
            let read = tokio::select! {
                biased;
                read = self.buffer.read(source) => read?,
                () = timer.as_mut() => {
                    // The timer is moved only here and when its time comes closer: not with every read.
                    self.look()?;
                    timer.as_mut().reset(self.next_look());
                    continue;
                }
            };
            match read {
                Read::Bytes(0) if self.buffer.is_empty() => return Err(CloseReason::PeerClosed),
                Read::Bytes(0) => return Err(CloseReason::PeerClosedInFrame(self.buffer.len())),
                Read::Bytes(bytes) => self.received = self.received.saturating_add(bytes),
                Read::NeedsFrame(bytes) => {
                    self.wait_for_memory(bytes).await?;
                    timer.as_mut().reset(self.next_look());
                    continue;
                }
            }
            if first_read && self.buffer.first() == Some(TLS_HANDSHAKE) {
                return Err(CloseReason::Tls);
            }
            first_read = false;
            let taken = self.serve(source).await?;
            let is_closer = self.waiting.update(taken, !self.buffer.is_empty());
            if is_closer || !self.looks {
                self.looks = true;
                timer.as_mut().reset(self.next_look());
            }
        }
    }

    /// A frame that has begun is longer than what every connection may have: it is read on once the node has the bytes.
    async fn wait_for_memory(&mut self, bytes: usize) -> Result<(), CloseReason> {
        let permit = timeout(self.config.frame_timeout, self.channel.budget().frame(bytes)).await;
        let Ok(Some(permit)) = permit else { return Err(CloseReason::NoMemory(bytes)) };
        self.buffer.hold_frame(bytes, permit);
        // What it waited was not the client's doing.
        self.waiting.since = Instant::now();
        self.received = usize::MAX;
        Ok(())
    }

    /// Hands over all whole frames; says whether there was one. Ends when more may be read.
    async fn serve(&mut self, source: &mut impl Source) -> Result<bool, CloseReason> {
        let mut taken = false;
        loop {
            let batch = self.take_frames()?;
            taken |= batch.frames > 0;
            if !self.channel.may_read() {
                let paused = Instant::now();
                self.wait_for_answers(source).await;
                self.waiting.since += paused.elapsed();
                self.received = usize::MAX;
            }
            if batch.is_last {
                self.buffer.after_frames();
                return Ok(taken);
            }
            tokio::task::yield_now().await;
        }
    }

    fn take_frames(&mut self) -> Result<Batch, CloseReason> {
        let mut frames = 0;
        while frames < FRAMES_AT_ONCE && !self.channel.is_busy() {
            match Frame::decode(self.buffer.bytes_mut()) {
                Ok(Some(frame)) if frame.is_response() => self.channel.answered(frame),
                Ok(Some(frame)) => self.service.request(self.channel, frame),
                Ok(None) => return Ok(Batch { frames, is_last: true }),
                Err(error) => return Err(CloseReason::BadFrame(error)),
            }
            frames += 1;
        }
        Ok(Batch { frames, is_last: false })
    }

    /// net.I5: nothing is read until some of its requests are answered. The end of the client is seen all the same: what
    /// it is told now does not arrive.
    async fn wait_for_answers(&self, source: &mut impl Source) {
        let mut ready = pin!(self.channel.ready_to_read());
        tokio::select! {
            biased;
            () = ready.as_mut() => return,
            () = source.ended() => self.channel.sends().close(),
        }
        ready.await;
    }

    /// When the connection is looked at again.
    fn next_look(&self) -> Instant {
        let deadline = self.waiting.deadline(self.config);
        if self.looks { deadline.min(Instant::now() + LOOK) } else { deadline }
    }

    fn look(&mut self) -> Result<(), CloseReason> {
        let now = Instant::now();
        if self.waiting.deadline(self.config) <= now {
            if self.waiting.in_frame || self.channel.has_answered() {
                return Err(self.waiting.reason(self.config));
            }
            // A client that waits for an answer is not idle.
            self.waiting.since = now;
        }
        if let Some(bytes) = self.buffer.long_frame()
            && self.received < pace(bytes, self.config.frame_timeout)
            && self.channel.budget().is_frame_waiting()
        {
            return Err(CloseReason::SlowFrame(bytes));
        }
        if self.received == 0 {
            self.looks = !self.buffer.release();
        }
        self.received = 0;
        Ok(())
    }
}

/// What must come of a frame between two looks while others wait for its memory.
fn pace(frame_bytes: usize, frame_timeout: Duration) -> usize {
    let part = LOOK.as_secs_f64() / frame_timeout.as_secs_f64().max(LOOK.as_secs_f64());
    (frame_bytes as f64 * part) as usize
}

/// What was taken off the buffer in one go.
struct Batch {
    frames: usize,
    /// No whole frame is left.
    is_last: bool,
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
        after(self.since, if self.in_frame { config.frame_timeout } else { config.idle_timeout })
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
    use bytes::BytesMut;
    use parking_lot::Mutex;
    use tokio::io::AsyncWriteExt;

    use super::super::Unanswered;
    use super::super::budget::Share;
    use super::*;

    #[derive(Default)]
    struct Seen {
        codes: Mutex<Vec<i32>>,
        /// Requests are kept unanswered.
        keeps: bool,
        unanswered: Mutex<Vec<Unanswered>>,
    }

    impl Service for Seen {
        fn request(&self, channel: &Channel, frame: Frame) {
            self.codes.lock().push(frame.code);
            if self.keeps {
                self.unanswered.lock().push(channel.expect_answer(&frame));
            }
        }
        fn closed(&self, _channel: &Channel) {}
    }

    fn config() -> NetConfig {
        NetConfig {
            frame_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
            requests_max: 128,
            ..NetConfig::default()
        }
    }

    async fn reason_after(
        bytes: &[u8],
        then: impl FnOnce(tokio::io::DuplexStream),
    ) -> (CloseReason, Vec<i32>) {
        let (mut client, mut server) = tokio::io::duplex(1 << 20);
        client.write_all(bytes).await.unwrap();
        then(client);
        let seen = Seen::default();
        let reason = read_frames(&mut server, &Channel::unconnected(), &config(), &seen).await;
        (reason, seen.codes.into_inner())
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
        let many: Vec<i32> = (0..1_000).collect();
        let (_, seen) = reason_after(&frames(&many), drop).await;
        assert_eq!(seen, many);
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

    #[tokio::test(start_paused = true)]
    async fn a_client_that_waits_for_an_answer_is_not_idle() {
        let (mut client, mut server) = tokio::io::duplex(1 << 20);
        client.write_all(&frames(&[11])).await.unwrap();
        let (seen, channel) = (Seen { keeps: true, ..Seen::default() }, Channel::unconnected());
        let config = config();
        let mut reading = pin!(read_frames(&mut server, &channel, &config, &seen));
        let early = timeout(Duration::from_secs(1_000), reading.as_mut()).await;
        assert!(early.is_err(), "it was closed");
        seen.unanswered.lock().clear();
        let reason = reading.await;
        assert!(matches!(reason, CloseReason::Idle(_)), "{reason}");
    }

    /// 60,000 queries in 0.3 s on one connection were served at once: others waited for 1.1 s.
    #[tokio::test(start_paused = true)]
    async fn i5_requests_beyond_the_limit_of_a_connection_stay_unread() {
        let (mut client, mut server) = tokio::io::duplex(1 << 20);
        let seen = Seen { keeps: true, ..Seen::default() };
        let channel = Channel::with_limits(&config());
        let config = config();
        client.write_all(&frames(&[14; 100])).await.unwrap();
        let mut reading = pin!(read_frames(&mut server, &channel, &config, &seen));
        assert!(
            timeout(Duration::from_secs(300), reading.as_mut()).await.is_err(),
            "it is paused, not closed"
        );
        assert_eq!(seen.codes.lock().len(), 8, "128 units, 16 for each");
        // Half of them are answered: as many come.
        seen.unanswered.lock().drain(..4);
        assert!(timeout(Duration::from_secs(1), reading.as_mut()).await.is_err());
        assert_eq!(seen.codes.lock().len(), 12);
        // One that is held is none of them.
        seen.unanswered.lock().iter_mut().for_each(Unanswered::hold);
        assert!(timeout(Duration::from_secs(1), reading.as_mut()).await.is_err());
        assert_eq!(seen.codes.lock().len(), 20);
        drop(client);
        seen.unanswered.lock().clear();
        while seen.codes.lock().len() < 100 {
            assert!(timeout(Duration::from_secs(1), reading.as_mut()).await.is_err());
            seen.unanswered.lock().clear();
        }
    }

    /// Sixty halves of frames of 16 MiB took a gigabyte, and kept it after they were closed.
    #[tokio::test(start_paused = true)]
    async fn i7_half_frames_wait_for_memory_and_give_it_back_when_they_end() {
        let config = NetConfig { frame_timeout: Duration::from_secs(10), ..NetConfig::with_memory(64 << 20) };
        let channel = Channel::with_limits(&config);
        let budget = channel.budget().clone();
        let mut whole = BytesMut::new();
        Frame::default().with_body(vec![0; 15 << 20]).encode(&mut whole).unwrap();
        let half = whole.split_to(8 << 20).freeze();
        let mut clients = Vec::new();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (mut client, mut server) = tokio::io::duplex(1 << 20);
            let (channel, config, half) = (channel.clone(), config.clone(), half.clone());
            tasks.spawn(async move { read_frames(&mut server, &channel, &config, &Seen::default()).await });
            clients.push(tokio::spawn(async move {
                drop(client.write_all(&half).await);
                client
            }));
        }
        let reasons = tokio::time::timeout(Duration::from_secs(600), async {
            let mut reasons = Vec::new();
            while let Some(reason) = tasks.join_next().await {
                assert!(budget.frame_bytes() <= budget.frame_bytes_max());
                reasons.push(reason.expect("no panic"));
            }
            reasons
        });
        let reasons = reasons.await.expect("each ends by itself");
        assert!(reasons.iter().any(|reason| matches!(reason, CloseReason::SlowFrame(_))), "{reasons:?}");
        assert_eq!((budget.frame_bytes(), budget.used(Share::Buffers)), (0, 0));
        clients.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
