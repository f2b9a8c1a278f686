//! Mends damaged records of this node's log with the copies of its peers.
//!
//! The log notes damage when a record is read (for a follower, a consumer, the scrub) and hands nothing of it out. Here
//! the record is asked of the other members until one has it. Only entries that this node knows to be committed are
//! mended with a peer's copy: every member's copy of those is the same.
//!
//! A copy that cannot be stored stands in for the record in memory (`damage.I3`), and is stored later.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use folio_engine::log::Damage;
use folio_engine::record::Record;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::codec;
use crate::config::GroupConfig;
use crate::shared::Shared;
use crate::state_machine::Raft;
use crate::transport::network::Connections;
use crate::transport::wire::{Kind, RecordBody};

/// How long to wait before asking again for a record that no peer could give, and before a copy that the disk did not take
/// is stored again for the first time; then twice as long each time.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Longest wait before a copy that the disk did not take is stored again.
const STORE_AFTER_MAX: Duration = Duration::from_secs(60);
/// How long a peer may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Mends what is found damaged, until its task is aborted.
///
/// `raft` is set once openraft runs; it may need a record mended to get there.
pub(crate) async fn run(
    raft: Arc<OnceLock<Raft>>,
    config: GroupConfig,
    shared: Arc<Shared>,
    connections: Connections,
) {
    let found = Arc::new(Notify::new());
    let notify = found.clone();
    shared.log.on_damage(Box::new(move || notify.notify_one()));
    let mut retries: BTreeMap<u64, Retry> = BTreeMap::new();
    loop {
        let damages = shared.log.damages();
        retries.retain(|position, _| damages.iter().any(|damage| damage.position == *position));
        for damage in damages {
            let (position, index) = (damage.position, damage.index);
            // What was beside it may have been stored with it meanwhile.
            let is_due = retries.get(&position).is_none_or(|retry| retry.at <= Instant::now());
            if !is_due || !shared.log.is_damaged(position) {
                continue;
            }
            let (peers, committed) = (peers(&raft, &config), committed(&raft, &shared));
            match mend(&peers, committed, &shared, &connections, &damage).await {
                Ok(from) => {
                    shared.rot.mended.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(position, index, from, "damaged record mended");
                }
                Err(reason) => {
                    let is_readable = !shared.log.is_unreadable(position);
                    tracing::warn!(position, index, is_readable, %reason, "damaged record not mended yet");
                    let retry = retries.get(&position);
                    retries.insert(position, Retry::after(retry.filter(|_| is_readable)));
                }
            }
        }
        let next = retries.values().map(|retry| retry.at).min();
        tokio::select! {
            () = found.notified() => {}
            () = until(next) => {}
        }
    }
}

/// When a record is to be mended again.
struct Retry {
    at: Instant,
    wait: Duration,
}

impl Retry {
    fn after(before: Option<&Retry>) -> Retry {
        let wait = before.map_or(RETRY_AFTER, |retry| (2 * retry.wait).min(STORE_AFTER_MAX));
        Retry { at: Instant::now() + wait, wait }
    }
}

/// Waits until then; for ever if nothing is to be done.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The last entry that this node knows to be committed.
fn committed(raft: &OnceLock<Raft>, shared: &Shared) -> u64 {
    let applied = shared.applied_index.load(Ordering::Acquire);
    let local = raft.get().and_then(|raft| raft.metrics().borrow_watched().local_committed);
    local.map_or(0, |id| id.index).max(applied)
}

/// Ids and addresses of the other members; before openraft runs, those of the group's birth.
pub(crate) fn peers(raft: &OnceLock<Raft>, config: &GroupConfig) -> Vec<(u64, String)> {
    let mut members: Vec<(u64, String)> = match raft.get() {
        Some(raft) => {
            let metrics = raft.metrics().borrow_watched().clone();
            let nodes = metrics.membership_config.membership().nodes();
            nodes.map(|(id, node)| (*id, node.raft.clone())).collect()
        }
        None => config.nodes.iter().map(|(id, node)| (*id, node.raft.clone())).collect(),
    };
    members.retain(|(id, _)| *id != config.node_id);
    members
}

/// Why a record is still damaged.
#[derive(Debug, thiserror::Error)]
enum NotMended {
    #[error("it is not known to be committed here yet")]
    NotCommitted,
    /// The copy in memory could not be stored.
    #[error(transparent)]
    Store(#[from] io::Error),
    /// No peer's copy could be had and stored; the reason of each.
    #[error("{}", .0.join("; "))]
    NoCopy(Vec<String>),
}

/// Returns whose copy it was.
async fn mend(
    peers: &[(u64, String)],
    committed: u64,
    shared: &Shared,
    connections: &Connections,
    damage: &Damage,
) -> Result<String, NotMended> {
    // Where only the disk is damaged, the page cache still has it; or the disk did not take it before.
    if let Some(record) = shared.log.cached_copy(damage) {
        store(shared, record).await?;
        return Ok("memory".into());
    }
    if damage.index > committed {
        return Err(NotMended::NotCommitted);
    }
    let body = codec::encode(&RecordBody { index: damage.index, position: damage.position });
    let mut reasons = Vec::new();
    for (id, address) in peers {
        let requests = connections.requests(*id, address, "mend");
        let answer = requests.request(Kind::Record, vec![Bytes::from(body.clone())], ANSWER_TIMEOUT).await;
        match answer.and_then(|frame| Record::parse(frame).map_err(io::Error::other)) {
            Ok(record) if record.position() == damage.position => match store(shared, record).await {
                Ok(()) => return Ok(format!("node {id}")),
                Err(reason) => reasons.push(format!("node {id}: {reason}")),
            },
            Ok(_) => reasons.push(format!("node {id} gave another record")),
            Err(reason) => reasons.push(format!("node {id}: {reason}")),
        }
    }
    Err(NotMended::NoCopy(reasons))
}

async fn store(shared: &Shared, record: Record) -> io::Result<()> {
    shared.durably(|done| shared.log.mend(record, done)).await
}
