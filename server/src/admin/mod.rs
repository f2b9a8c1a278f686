//! Administrative requests: from where they are accepted. Which they are says `request_table.rs`;
//! the dispatcher refuses them.
//!
//! FolioMQ has no access control yet. Until it does, whoever reaches a port may do what RocketMQ's clients do by
//! themselves; what changes or reveals the cluster is an operator's. An operator is known by the connection:
//!
//! | a connection | is an operator's |
//! |---|---|
//! | from this machine: a loopback address, or the one that it came to | always |
//! | from a network of `listen.admin_from` | at every port |
//! | to the port `listen.admin` | always: who can connect to it is the network's business |
//! | any other | never |
//!
//! Not here: how nodes know each other; who may write to which topic.
//!
//! Invariants
//! - `admin.I1` A request of class `Class::Admin` is neither served nor forwarded unless it is an operator's.
//! - `admin.I2` The node that a client is connected to decides, once for each connection, and nothing in a frame changes
//!   it. Another node is told by the peers' transport (`origin.rs`) and asks again: an administrative request
//!   that comes without that word is refused.
//! - `admin.I3` Who is no operator creates topics and groups, and takes nothing away from those that exist.

mod networks;

pub use self::networks::{Network, NetworkError};

use std::net::SocketAddr;

use crate::error::ServerError;

/// Whether a connection from there is an operator's, whatever port it comes to. Who connects to an address of his own machine
/// comes from that address; a packet from outside that says so is dropped by the kernel.
pub(crate) fn is_operator(networks: &[Network], remote: SocketAddr, local: Option<SocketAddr>) -> bool {
    local.is_some_and(|local| local.ip().to_canonical() == remote.ip().to_canonical())
        || networks.iter().any(|network| network.contains(remote.ip()))
}

/// What who is no operator is told.
pub(crate) fn refusal(what: &str, remote: SocketAddr) -> ServerError {
    let from = remote.ip().to_canonical();
    ServerError::NotAccepted(format!(
        "{what} is an administrative request, which is not accepted from {from}. It is accepted from the machine that the \
         node runs on, at the node's port `listen.admin`, and from the networks in `listen.admin_from` (keys of the node's \
         configuration; `adminListenPort` and `adminFrom` in a broker.conf)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_hears_from_where_it_would_be_accepted_and_by_which_key() {
        let text = refusal("DELETE_TOPIC_IN_BROKER (215)", ([10, 1, 2, 3], 4_567).into()).to_string();
        for part in
            ["DELETE_TOPIC_IN_BROKER (215)", "10.1.2.3.", "listen.admin`", "listen.admin_from", "adminFrom"]
        {
            assert!(text.contains(part), "{text} lacks {part}");
        }
    }

    #[test]
    fn a_connection_is_an_operators_by_its_address() {
        let by_default = Network::LOOPBACK.to_vec();
        let wider = [by_default.clone(), vec!["10.0.0.0/8".parse().expect("a network")]].concat();
        let at = |text: &str| text.parse().expect(text);
        let may = |networks: &[Network], remote: &str| {
            is_operator(networks, at(remote), Some(at("192.0.2.1:10911")))
        };
        assert!(may(&by_default, "127.0.0.1:1") && may(&by_default, "[::1]:1"));
        assert!(!may(&by_default, "10.1.2.3:1") && !may(&by_default, "192.0.2.2:1"));
        assert!(may(&wider, "10.1.2.3:1") && !may(&wider, "192.0.2.2:1"));
        assert!(may(&by_default, "192.0.2.1:1") && may(&[], "[::ffff:192.0.2.1]:1"), "the same machine");
        assert!(!is_operator(&[], at("192.0.2.1:1"), None));
    }
}
