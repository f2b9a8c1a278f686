//! Two processes under one client id: each believes that it is alone, so both consume all queues of the one member that the
//! group lists.
//!
//! A process has one connection to a node. One that reconnects leaves the old connection silent; two processes go on
//! registering in turns. So a connection that registers again after another one took its place shows that there are two.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::connection::Connection;

/// (group, client id).
pub(super) type Key = (String, String);

/// The connections that registered a client last, the newest first.
#[derive(Default)]
struct Owner {
    newest: Option<(u64, SocketAddr)>,
    before: Option<(u64, SocketAddr)>,
    warned: bool,
}

/// Who registers under which name.
#[derive(Default)]
pub(super) struct Owners(HashMap<Key, Owner>);

/// Two processes with one client id in one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Duplicate {
    /// The group.
    pub group: String,
    /// The id that both have.
    pub client_id: String,
    /// Where they are.
    pub addresses: [SocketAddr; 2],
}

impl Owners {
    /// A client registers. Says once that there are two of them.
    pub(super) fn heard(&mut self, key: &Key, channel: &impl Connection) -> Option<Duplicate> {
        let owner = match self.0.get_mut(key) {
            Some(owner) => owner,
            None => self.0.entry(key.clone()).or_default(),
        };
        let this = (channel.id(), channel.remote());
        if owner.newest == Some(this) {
            return None;
        }
        let back = owner.before == Some(this);
        owner.before = owner.newest.replace(this);
        let (_, other) = owner.before.filter(|_| back && !owner.warned)?;
        owner.warned = true;
        let (group, client_id) = key.clone();
        Some(Duplicate { group, client_id, addresses: [this.1, other] })
    }

    /// A registration ended.
    pub(super) fn gone(&mut self, key: &Key, channel: u64) {
        let Some(owner) = self.0.get_mut(key) else { return };
        let others = |held: &(u64, SocketAddr)| held.0 != channel;
        owner.newest = owner.newest.filter(others);
        owner.before = owner.before.filter(others);
        if owner.newest.is_none() && owner.before.is_none() {
            self.0.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::testing::Unconnected;

    #[tokio::test]
    async fn two_that_register_in_turns_are_named_once_and_one_that_reconnects_is_not() {
        let (mut owners, key) = (Owners::default(), ("g".to_owned(), "10.0.0.1@1".to_owned()));
        let (one, two, three) = (Unconnected::new(), Unconnected::new(), Unconnected::new());
        let mut heard = |channel: &Unconnected| owners.heard(&key, channel).is_some();
        assert!(!heard(&one) && !heard(&one), "one process");
        assert!(!heard(&two) && !heard(&two), "it connected anew");
        assert!(heard(&one), "the old connection speaks again: there are two");
        assert!(!heard(&two) && !heard(&one), "said before");
        for channel in [&one, &two] {
            owners.gone(&key, channel.id());
        }
        assert!(owners.0.is_empty());
        let mut heard = |channel: &Unconnected| owners.heard(&key, channel).is_some();
        assert!(!heard(&three) && !heard(&one));
        owners.gone(&key, three.id());
        let mut heard = |channel: &Unconnected| owners.heard(&key, channel).is_some();
        assert!(!heard(&three), "the first one had left: two processes, one after the other");
    }
}
