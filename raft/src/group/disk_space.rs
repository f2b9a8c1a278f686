//! A leader whose disk is full gives leadership to a member that has room.
//!
//! It refuses every send meanwhile, and a follower with a full disk takes no records; so as long as a majority has room,
//! it is the leader's disk alone that stops the group. Members are asked, so that leadership does not go from one full
//! disk to the next.
//!
//! - `room.I1`: a full disk ends no node. Sends are refused while there is no room for all that follows from them; what was
//!   taken before waits, and goes on by itself once there is room.
//! - `room.I2`: what makes room does not wait for room. Messages that keep retention from dropping segments are stored further on,
//!   and followers take them, in the rest of the segment that is being written: no send takes it, nor anything else that comes all
//!   the time.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::{Group, HandOver, Inner};
use crate::host::Host;
use crate::shared::{ROOM_RETRY_INTERVAL, Shared};
use crate::status::{Role, Status};
use crate::transport::wire::Kind;

/// How often a leader looks at its disk.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long a member may take to say whether it has room.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// After handing over, or failing to, the next attempt waits this long.
const PAUSE: Duration = Duration::from_secs(2);

/// Looks for room while there is none, until its task is aborted.
pub(crate) async fn keep(host: Host, shared: Arc<Shared>) {
    loop {
        sleep(ROOM_RETRY_INTERVAL).await;
        if shared.reserve.is_whole() && !shared.derived.disk_full() {
            continue;
        }
        let on = shared.clone();
        let looked = host.blocking(move || on.look_for_room()).await;
        if let Err(error) = looked.map_err(anyhow::Error::from).flatten() {
            tracing::warn!(%error, "cannot see whether the disk has room, trying again");
        }
    }
}

/// What a node answers to [`Kind::Room`]: one byte.
pub(crate) fn answer(shared: &Shared) -> Bytes {
    Bytes::copy_from_slice(&[u8::from(shared.has_room(1))])
}

/// Watches this node's disk while it leads, until its task is aborted.
pub(super) async fn run(inner: Weak<Inner>) {
    loop {
        sleep(LOOK_INTERVAL).await;
        let Some(group) = inner.upgrade().map(Group) else { return };
        if group.0.shared.has_room(1) || group.0.status.borrow().role != Role::Leader {
            continue;
        }
        if let Some(to) = with_room(&group).await {
            tracing::warn!(to, "this node's disk is full: handing leadership over");
            if let Err(error) = group.hand_over(Some(to), HandOver::DiskFull).await {
                tracing::warn!(%error, "leadership not handed over");
            }
        }
        drop(group);
        sleep(PAUSE).await;
    }
}

/// The voter closest behind that has room.
async fn with_room(group: &Group) -> Option<u64> {
    let status = group.status();
    let asked = candidates(&status).into_iter().map(|(id, address)| async move {
        let requests = group.0.connections.requests(id, &address, "room");
        let answer = requests.request(Kind::Room, Vec::new(), ANSWER_TIMEOUT).await;
        answer.is_ok_and(|room| *room == [1]).then_some(id)
    });
    futures_util::future::join_all(asked).await.into_iter().flatten().next()
}

/// The other voters, the one with the least to catch up first.
fn candidates(status: &Status) -> Vec<(u64, String)> {
    let others = status.voters.iter().filter(|id| **id != status.node_id);
    let mut others: Vec<_> =
        others.filter_map(|id| Some((*id, status.members.get(id)?.raft.clone()))).collect();
    others.sort_by_key(|(id, _)| status.lag.get(id).copied().unwrap_or(u64::MAX));
    others
}
