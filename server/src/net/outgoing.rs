//! The queue of bytes towards one peer: many pushers, one writer task.
//!
//! Small frames are encoded into one growing tail, so that everything pushed while the writer was
//! busy leaves in one vectored write. Bodies that are slices of the log are queued as they are.

use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use super::CloseReason;

/// Slices handed to one `writev`. Linux takes 1,024; beyond some dozens nothing is gained.
const SLICES_MAX: usize = 64;
/// A tail larger than this is queued as a part, so that one burst does not pin its memory for ever.
const TAIL_BYTES_MAX: usize = 64 * 1024;

/// Bytes waiting for the peer, and whether more may come.
pub(super) struct Outgoing {
    queue: Mutex<Queue>,
    work: Notify,
    bytes_max: usize,
}

#[derive(Default)]
struct Queue {
    parts: Vec<Bytes>,
    tail: BytesMut,
    /// Bytes in `parts`, `tail` and in the writer's hands.
    bytes: usize,
    state: State,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// Nothing more is taken; what is queued still leaves.
    Draining,
    /// Nothing more is taken, nothing more leaves.
    Closed,
}

impl Outgoing {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { queue: Mutex::default(), work: Notify::new(), bytes_max }
    }

    /// Queues what `encode` appends. Bytes pushed after the end are dropped: nobody reads them.
    pub(super) fn push(&self, encode: impl FnOnce(&mut BytesMut)) -> Result<(), CloseReason> {
        self.change(|queue| {
            let before = queue.tail.len();
            encode(&mut queue.tail);
            queue.bytes += queue.tail.len() - before;
            if queue.tail.len() > TAIL_BYTES_MAX {
                queue.seal_tail();
            }
        })
    }

    /// Queues what `encode` appends and then `parts` as they are.
    pub(super) fn push_parts(
        &self,
        encode: impl FnOnce(&mut BytesMut),
        parts: Vec<Bytes>,
    ) -> Result<(), CloseReason> {
        self.change(|queue| {
            let before = queue.tail.len();
            encode(&mut queue.tail);
            queue.bytes += queue.tail.len() - before;
            queue.seal_tail();
            queue.bytes += parts.iter().map(Bytes::len).sum::<usize>();
            queue.parts.extend(parts);
        })
    }

    fn change(&self, add: impl FnOnce(&mut Queue)) -> Result<(), CloseReason> {
        let queued = {
            let mut queue = self.queue.lock();
            if queue.state != State::Open {
                return Ok(());
            }
            add(&mut queue);
            queue.bytes
        };
        if queued > self.bytes_max {
            return Err(CloseReason::NotReading { queued, max: self.bytes_max });
        }
        self.work.notify_one();
        Ok(())
    }

    /// Takes no more; the writer ends when everything queued has left.
    pub(super) fn drain(&self) {
        self.end(State::Draining);
    }

    /// Takes no more and drops what is queued.
    pub(super) fn close(&self) {
        self.end(State::Closed);
    }

    fn end(&self, state: State) {
        let mut queue = self.queue.lock();
        if queue.state != State::Closed {
            queue.state = state;
        }
        if queue.state == State::Closed {
            queue.parts = Vec::new();
            queue.tail = BytesMut::new();
        }
        drop(queue);
        self.work.notify_one();
    }

    pub(super) fn is_open(&self) -> bool {
        self.queue.lock().state == State::Open
    }

    /// Writes until the queue is closed, or drained and empty.
    pub(super) async fn write_all(&self, mut socket: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut parts = Vec::new();
        loop {
            match self.take(&mut parts) {
                Taken::Parts(bytes) => {
                    write_parts(&mut socket, &mut parts).await?;
                    self.queue.lock().bytes -= bytes;
                }
                Taken::Nothing => self.work.notified().await,
                Taken::End => return socket.shutdown().await,
            }
        }
    }

    fn take(&self, parts: &mut Vec<Bytes>) -> Taken {
        let mut queue = self.queue.lock();
        if queue.state == State::Closed {
            return Taken::End;
        }
        queue.seal_tail();
        if queue.parts.is_empty() {
            return if queue.state == State::Draining { Taken::End } else { Taken::Nothing };
        }
        parts.clear();
        std::mem::swap(parts, &mut queue.parts);
        Taken::Parts(queue.bytes)
    }
}

enum Taken {
    Parts(usize),
    Nothing,
    End,
}

impl Queue {
    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            let sealed = self.tail.split().freeze();
            self.parts.push(sealed);
        }
    }
}

async fn write_parts(socket: &mut (impl AsyncWrite + Unpin), parts: &mut [Bytes]) -> io::Result<()> {
    let mut first = 0;
    while first < parts.len() {
        let until = parts.len().min(first + SLICES_MAX);
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        for (slice, part) in slices.iter_mut().zip(&parts[first..until]) {
            *slice = IoSlice::new(part);
        }
        let mut written = socket.write_vectored(&slices[..until - first]).await?;
        if written == 0 && parts[first..until].iter().any(|part| !part.is_empty()) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while first < until && written >= parts[first].len() {
            written -= parts[first].len();
            parts[first] = Bytes::new();
            first += 1;
        }
        if first < until {
            parts[first].advance(written);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_pushed_leaves_in_order_and_the_writer_ends_when_drained() {
        let outgoing = Outgoing::new(1 << 20);
        for text in ["one ", "two "] {
            outgoing.push(|tail| tail.extend_from_slice(text.as_bytes())).expect("open");
        }
        let parts = (0..200).map(|_| Bytes::from_static(b".")).collect();
        outgoing.push_parts(|tail| tail.extend_from_slice(b"head"), parts).expect("open");
        outgoing.push(|tail| tail.extend_from_slice(b" end")).expect("open");
        outgoing.drain();
        outgoing.push(|tail| tail.extend_from_slice(b"too late")).expect("dropped silently");
        let mut out = Vec::new();
        outgoing.write_all(&mut out).await.expect("a Vec takes everything");
        assert_eq!(out, format!("one two head{} end", ".".repeat(200)).into_bytes());
        assert_eq!(outgoing.queue.lock().bytes, 0);
    }

    #[test]
    fn a_peer_that_does_not_read_is_found_out_by_bytes() {
        let outgoing = Outgoing::new(10);
        outgoing.push(|tail| tail.extend_from_slice(b"0123456789")).expect("just fits");
        let reason = outgoing.push(|tail| tail.extend_from_slice(b"x")).expect_err("one too many");
        assert_eq!(reason.to_string(), "the client does not read: 11 bytes wait for it, at most 10 may");
    }
}
