//! A client's connection, as far as the broker must know it.

use std::net::SocketAddr;

use crate::reads::ReadTurn;
use crate::transactions::TransactionCheck;

/// A client's end of something that ends.
pub trait Connection: Send + Sync + 'static {
    /// Unique in this process, never used again.
    fn id(&self) -> u64;
    /// The client's address.
    fn remote(&self) -> SocketAddr;
    /// Whether what the client is told still has a chance to arrive.
    fn is_open(&self) -> bool;
    /// Tells the client that members or subscriptions of a consumer group have changed.
    fn group_changed(&self, group: &str);
    /// Asks a producer what became of its transaction. Must not block.
    fn check_transaction(&self, check: &TransactionCheck);
}

/// A connection whose client reads what is given out; clones are the same connection.
pub trait Reader: Connection + Clone {
    /// Whether requests are still served: not once the node stops.
    fn takes_requests(&self) -> bool;
    /// Lets a read from the disk begin for this client, if it need not wait (`disk_reads.I1`).
    fn try_read_turn(&self) -> Option<ReadTurn>;
    /// Waits until one may begin; `None` if the connection is closed.
    fn read_turn(&self) -> impl Future<Output = Option<ReadTurn>> + Send;
    /// Whether the client has so much to read that no more is begun for it.
    fn is_behind(&self) -> bool;
    /// Waits until it has read some of that, or is closed.
    fn catch_up(&self) -> impl Future<Output = ()> + Send;
}

#[cfg(test)]
pub(crate) mod testing {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;

    /// A connection that leads nowhere; clones are the same one.
    #[derive(Clone)]
    pub(crate) struct Unconnected(Arc<(u64, AtomicBool)>);

    impl Unconnected {
        pub(crate) fn new() -> Unconnected {
            static NEXT_ID: AtomicU64 = AtomicU64::new(1);
            Unconnected(Arc::new((NEXT_ID.fetch_add(1, Ordering::Relaxed), AtomicBool::new(true))))
        }

        pub(crate) fn close(&self) {
            self.0.1.store(false, Ordering::Relaxed);
        }
    }

    impl Connection for Unconnected {
        fn id(&self) -> u64 {
            self.0.0
        }

        fn remote(&self) -> SocketAddr {
            ([127, 0, 0, 1], 9).into()
        }

        fn is_open(&self) -> bool {
            self.0.1.load(Ordering::Relaxed)
        }

        fn group_changed(&self, _group: &str) {}

        fn check_transaction(&self, _check: &TransactionCheck) {}
    }
}
