//! One node on a simulated disk. Its segments are smaller than a batch of messages may become: no record is larger than its
//! log takes. And it ends when its log is poisoned.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use folio_engine::disk::sim::{Fault, SimDisk};
use folio_engine::queues::Arrival;
use folio_protocol::message::NewMessage;
use folio_raft::command::{Command, Topic};
use folio_raft::config::{Flush, GroupConfig, Retention, Scrub, Timing};
use folio_raft::group::{Group, Hooks};
use folio_raft::proposal::{Proposal, ProposeError, Receipt};
use folio_raft::status::Role;
use folio_raft::types::NodeAddress;

/// Nothing a test waits for takes longer, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Quiet;

impl Hooks for Quiet {
    fn call(&self, _: u64, request: Bytes) -> Pin<Box<dyn Future<Output = Bytes> + Send>> {
        Box::pin(std::future::ready(request))
    }
    fn applied(&self, _: &[Arrival]) {}
    fn metadata_changed(&self) {}
}

async fn leader() -> Group {
    leader_on(SimDisk::new()).await
}

async fn leader_on(disk: SimDisk) -> Group {
    let config = GroupConfig {
        node_id: 1,
        cluster: "c".into(),
        group: "g".into(),
        data_dir: "/data".into(),
        segment_bytes: 64 << 10,
        nodes: [(1, NodeAddress::default())].into(),
        dial: Default::default(),
        join: false,
        listen: ([127, 0, 0, 1], 0).into(),
        flush: Flush::Sync,
        timing: Timing::default(),
        retention: Retention::default(),
        scrub: Scrub::default(),
        dedup: None,
    };
    let group = Group::start(config, Arc::new(disk), Arc::new(Quiet)).await.unwrap();
    let mut status = group.watch();
    let leads = status.wait_for(|status| status.role == Role::Leader);
    tokio::time::timeout(PATIENCE, leads).await.unwrap().unwrap();
    group
}

async fn send(group: &Group, bytes: usize) -> Result<Receipt, ProposeError> {
    let local: SocketAddr = ([127, 0, 0, 1], 1).into();
    let message = NewMessage {
        topic: "orders".into(),
        queue_id: 0,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 0,
        born_host: local,
        store_timestamp: 0,
        store_host: local,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: vec![b'x'; bytes].into(),
        properties: Bytes::new(),
    };
    let (answer, answered) = tokio::sync::oneshot::channel();
    let reply = Box::new(move |result| drop(answer.send(result)));
    group.propose(Proposal { messages: vec![message], once: false, reply }).map_err(|(_, error)| error)?;
    answered.await.unwrap()
}

/// Messages that waited together were put into one record, whatever the segment's size: the log refused it, and the node
/// stopped. A command that no record holds stopped it too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_larger_than_a_segment_stopped_the_leader() {
    let leader = leader().await;
    let burst = (0..400).map(|_| send(&leader, 500));
    let answers = futures_util::future::join_all(burst).await;
    assert!(answers.iter().all(Result::is_ok), "{:?}", answers.iter().find(|answer| answer.is_err()));
    let limit = leader.log().record_bytes_max();
    let huge = Topic { filter_type: "x".repeat(limit), ..Topic::new("huge", 1) };
    let refused = leader.execute(Command::PutTopic(huge)).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge { .. })), "{refused:?}");
    let refused = send(&leader, limit).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge { .. })), "{refused:?}");
    assert_eq!(send(&leader, 500).await.unwrap().queue_offsets[..], [400]);
    leader.shutdown().await;
}

/// Found by the harness: such a node stayed what it was until somebody wrote to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_log_is_poisoned_ends_though_nobody_writes_to_it() {
    let disk = SimDisk::new();
    let group = leader_on(disk.clone()).await;
    (disk.ops()..disk.ops() + 100_000).for_each(|op| disk.fail_at(op, Fault::FailSync));
    // A vote that openraft does not know of: it is not told of the failure.
    group.log().save_vote(b"any", Box::new(|_| ()));
    let mut status = group.watch();
    let stopped = status.wait_for(|status| matches!(status.role, Role::Stopped(_)));
    tokio::time::timeout(PATIENCE, stopped).await.unwrap().unwrap();
}
