//! The accounts of this node's connections, by the client's end: found from the stored message, which carries it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use folio_raft::proposal::{Knows, Question};
use parking_lot::Mutex;

use super::Sends;

/// See the module. A connection is in it from its first send until it is closed.
#[derive(Debug, Default)]
pub struct SendTable {
    /// One client's end may lead to several ports of this node.
    by_client: Mutex<HashMap<SocketAddr, Vec<Arc<Sends>>>>,
}

impl SendTable {
    /// Lists a connection, if it is not listed yet.
    pub fn list(&self, client: SocketAddr, sends: &Arc<Sends>) {
        if !sends.listed.load(Ordering::Relaxed) && !sends.listed.swap(true, Ordering::Relaxed) {
            self.by_client.lock().entry(client).or_default().push(sends.clone());
        }
    }

    /// The connection is gone.
    pub fn closed(&self, client: SocketAddr, sends: &Arc<Sends>) {
        if !sends.listed.load(Ordering::Relaxed) {
            return;
        }
        let mut by_client = self.by_client.lock();
        if let Some(listed) = by_client.get_mut(&client) {
            listed.retain(|other| !Arc::ptr_eq(other, sends));
            if listed.is_empty() {
                by_client.remove(&client);
            }
        }
    }

    /// Whether no connection from this client's end lives any more.
    pub fn is_gone(&self, client: SocketAddr) -> bool {
        let by_client = self.by_client.lock();
        by_client.get(&client).is_none_or(|listed| listed.iter().all(|sends| sends.is_closed()))
    }

    /// What a client of this node knows of an earlier send.
    pub fn knows(&self, question: &Question) -> Knows {
        let listed = self.by_client.lock().get(&question.client).cloned().unwrap_or_default();
        let known: Vec<Knows> = listed.iter().map(|sends| sends.knows(question)).collect();
        let most_careful = [Knows::Doubtful, Knows::Settled].into_iter().find(|knows| known.contains(knows));
        most_careful.unwrap_or(Knows::Gone)
    }
}
