//! The entrance to a driver: requests that wait, bounded, and never blocking who asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::Driver;
use super::in_flight::Reply;
use crate::proposal::ProposeError;

/// Requests of one driver that may wait.
pub(super) const WAITING_MAX: usize = 4096;
/// Their bytes.
const WAITING_BYTES_MAX: usize = 32 << 20;

/// A request that waits; its bytes count until it is decided.
pub(super) struct Waiting<R> {
    pub(super) request: R,
    pub(super) reply: Reply,
    pub(super) _bytes: WaitingBytes,
}

/// Bytes of one request among those that wait.
pub(super) struct WaitingBytes {
    bytes: usize,
    all: Arc<AtomicUsize>,
}

impl WaitingBytes {
    /// Of a request that its driver makes itself.
    pub(super) fn none(all: &Arc<AtomicUsize>) -> WaitingBytes {
        WaitingBytes { bytes: 0, all: all.clone() }
    }

    fn take(bytes: usize, all: &Arc<AtomicUsize>) -> Option<WaitingBytes> {
        let before = all.fetch_add(bytes, Ordering::Relaxed);
        let taken = WaitingBytes { bytes, all: all.clone() };
        (before <= WAITING_BYTES_MAX).then_some(taken)
    }
}

impl Drop for WaitingBytes {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The entrance to a driver. Cheap to clone.
pub(crate) struct Requests<D: Driver> {
    pub(super) driver: Arc<D>,
    pub(super) queue: mpsc::Sender<Waiting<D::Request>>,
    pub(super) bytes: Arc<AtomicUsize>,
}

// Not derived: that would ask the driver itself to be cloned.
impl<D: Driver> Clone for Requests<D> {
    fn clone(&self) -> Self {
        Requests { driver: self.driver.clone(), queue: self.queue.clone(), bytes: self.bytes.clone() }
    }
}

impl<D: Driver> Requests<D> {
    /// Asks for a move. `reply` is called once it is made, was made before, or failed. Never blocks.
    pub(crate) fn ask(&self, request: D::Request, reply: Reply) {
        let Some(bytes) = WaitingBytes::take(self.driver.bytes(&request), &self.bytes) else {
            return reply(Err(ProposeError::Busy));
        };
        if let Err(refused) = self.queue.try_send(Waiting { request, reply, _bytes: bytes }) {
            let error = match &refused {
                mpsc::error::TrySendError::Full(_) => ProposeError::Busy,
                mpsc::error::TrySendError::Closed(_) => stopped(),
            };
            (refused.into_inner().reply)(Err(error));
        }
    }
}

pub(super) fn stopped() -> ProposeError {
    ProposeError::Stopped("nothing is moved any more".into())
}
