use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use folio_engine::disk::sim::SimDisk;
use tokio::sync::oneshot;

use super::Group;
use crate::config::{DedupConfig, GroupConfig};
use crate::driver::term_fence::SettledTerm;
use crate::proposal::{Proposal, ProposeError, Receipt, Repeat};
use crate::storage_suite::{NoHooks, config, message};
use crate::types::NodeAddress;

const PATIENCE: Duration = Duration::from_secs(30);

async fn alone(dedup: Option<DedupConfig>) -> Group {
    let address = || "127.0.0.1:0".to_owned();
    let node = NodeAddress { raft: address(), broker: address(), namesrv: address() };
    let nodes = BTreeMap::from([(0, node)]);
    let config = GroupConfig { nodes, dedup, ..config(Path::new("/data/broker-a")) };
    let group = Group::start(config, Arc::new(SimDisk::new()), Arc::new(NoHooks)).await.unwrap();
    let mut status = group.watch();
    let led = status.wait_for(|status| status.leader == Some(0));
    drop(tokio::time::timeout(PATIENCE, led).await.unwrap().unwrap());
    assert!(group.settle(PATIENCE).await);
    group
}

async fn propose(group: &Group, term: impl Into<Option<SettledTerm>>) -> Result<Receipt, ProposeError> {
    let (done, outcome) = oneshot::channel();
    let reply = Box::new(move |stored| drop(done.send(stored)));
    let proposal = Proposal { messages: vec![message("orders", 0)], repeat: Repeat::Same, reply };
    group.0.proposer.propose_in(term, proposal).map_err(|(_, error)| error)?;
    tokio::time::timeout(PATIENCE, outcome).await.unwrap().unwrap()
}

/// What a driver has stored by itself, below the level of transitions, waited in the proposer and was stored in the next term. A
/// repeat of the request may have moved the message by then: that term had the level, and knew nothing of what waited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn driver_i1_a_message_that_a_driver_decided_on_was_stored_in_a_later_term() {
    // Before: still so where no repeats are looked for.
    for dedup in [Some(DedupConfig::default()), None] {
        is_stored_in_its_term(&alone(dedup).await).await;
    }
}

async fn is_stored_in_its_term(group: &Group) {
    let term = group.status().term;
    for other in [term - 1, term + 1] {
        let refused = propose(group, SettledTerm::of_test(other)).await;
        assert_eq!(refused, Err(ProposeError::NotLeader { leader: None }), "{other}");
    }
    let stored = propose(group, SettledTerm::of_test(term)).await.unwrap();
    assert_eq!(stored.queue_offsets[..], [0], "none before it");
    assert_eq!(propose(group, None).await.unwrap().queue_offsets[..], [1]);
    group.shutdown().await;
}
