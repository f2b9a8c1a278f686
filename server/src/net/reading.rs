//! What one connection sends: read, cut into frames, handed to the service.
//!
//! Not here: the buffer ([`ReadBuffer`]), how much a connection may have in flight ([`Channel::may_read`]).

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::config::after;
use super::read_buffer::{Holds, READ_BYTES_MAX, Read, ReadBuffer, Source, Step};
use super::share::Share;
use super::{Channel, CloseReason, NetConfig, Service};

/// First byte of a TLS handshake record. As a frame's first byte it would mean 352 MiB or more.
const TLS_HANDSHAKE: u8 = 0x16;
/// Frames that are served in one go; then other connections have a turn.
const FRAMES_AT_ONCE: usize = 256;
/// How often a connection that holds memory is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// The first time after its frame has waited for memory: what waits now shall not wait long for one that sends nothing.
const FIRST_LOOK: Duration = Duration::from_millis(500);
/// What comes in less time says nothing about a client.
const PACE_TIME_MIN: Duration = Duration::from_millis(400);
/// A frame comes at least so fast while others wait for its memory: 256 KiB take two seconds.
const PACE_BYTES_A_SECOND: f64 = 128.0 * 1024.0;

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
        counted_since: Instant::now(),
        next: LOOK,
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
    /// Bytes since the time below: the last look, or the last pause.
    received: usize,
    counted_since: Instant,
    /// When to look again.
    next: Duration,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.channel.keep(self.buffer.end());
    }
}

impl Reading<'_> {
    async fn run(&mut self, source: &mut impl Source) -> Result<Infallible, CloseReason> {
        let mut timer = pin!(sleep_until(self.next_look()));
        let mut first_read = true;
        loop {
            self.buffer.cover_requests(self.channel.request_bytes());
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
                Read::NeedsMemory(step) => {
                    self.wait_for_memory(step).await?;
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
                if !self.looks {
                    self.counted_since = Instant::now();
                }
                self.looks = true;
                timer.as_mut().reset(self.next_look());
            }
        }
    }

    /// A frame that has begun is longer than what every connection may have: it is read on once the node has the bytes.
    async fn wait_for_memory(&mut self, step: Step) -> Result<(), CloseReason> {
        let asked = Instant::now();
        let (frames, address) = (self.channel.budget().frames(), self.channel.remote().ip().to_canonical());
        let memory = self.buffer.take_memory().unwrap_or_else(|| frames.begin(address, step.frame_bytes));
        let Ok(has_waited) = timeout(self.config.frame_timeout, memory.grow(step.bytes)).await else {
            return Err(CloseReason::NoMemory(step.frame_bytes));
        };
        self.buffer.hold_frame(step.bytes, memory);
        if has_waited {
            self.after_pause(asked);
            self.next = FIRST_LOOK;
        }
        Ok(())
    }

    /// Nothing was read for a while, which was not the client's doing.
    fn after_pause(&mut self, since: Instant) {
        self.waiting.since += since.elapsed();
        self.counted_since = Instant::now();
        self.received = 0;
    }

    /// Hands over all whole frames; says whether there was one. Ends when more may be read.
    async fn serve(&mut self, source: &mut impl Source) -> Result<bool, CloseReason> {
        let mut taken = false;
        loop {
            let batch = self.take_frames()?;
            taken |= batch.frames > 0;
            if self.channel.is_covered() {
                self.buffer.after_frames();
            }
            if !self.channel.may_read() {
                let paused = Instant::now();
                self.wait_for_answers(source).await;
                self.after_pause(paused);
                self.buffer.after_frames();
            }
            if batch.is_last {
                return Ok(taken);
            }
            tokio::task::yield_now().await;
        }
    }

    fn take_frames(&mut self) -> Result<Batch, CloseReason> {
        let mut frames = 0;
        while frames < FRAMES_AT_ONCE && !self.channel.is_busy() {
            match self.buffer.take_frame() {
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
        if self.looks { deadline.min(Instant::now() + self.next) } else { deadline }
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
        if let Some(frame_bytes) = self.slow_frame() {
            return Err(CloseReason::SlowFrame(frame_bytes));
        }
        if self.received == 0 {
            self.looks = !self.buffer.release();
        }
        (self.received, self.counted_since, self.next) = (0, now, LOOK);
        Ok(())
    }

    /// The length of the frame that has begun, if it comes slowly and others wait for what it holds.
    fn slow_frame(&self) -> Option<usize> {
        let (frame_bytes, holds) = self.buffer.begun()?;
        // It may have begun in this moment.
        let time = self.counted_since.max(self.waiting.since).elapsed();
        if time < PACE_TIME_MIN || self.received >= pace(frame_bytes, self.config.frame_timeout, time) {
            return None;
        }
        let budget = self.channel.budget();
        let others_wait = match holds {
            Holds::Frames => budget.frames().is_waiting(),
            // A short frame needs no share: the buffer is given back below.
            Holds::Buffers => !self.buffer.is_base_enough() && budget.lacks(Share::Buffers, READ_BYTES_MAX),
        };
        others_wait.then_some(frame_bytes)
    }
}

/// What must come of a frame in some time while others wait for its memory.
fn pace(frame_bytes: usize, frame_timeout: Duration, time: Duration) -> usize {
    let a_second = frame_bytes as f64 / frame_timeout.as_secs_f64().max(LOOK.as_secs_f64());
    (a_second.max(PACE_BYTES_A_SECOND) * time.as_secs_f64()) as usize
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
mod tests;
